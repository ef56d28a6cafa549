package gateway

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/time/rate"
)

const (
	// heartbeat keeps a stream from looking dead.
	heartbeat = 15 * time.Second

	// writeTimeout ends a stream whose reader does not read.
	writeTimeout = 30 * time.Second

	// changeEvery and changeBurst bound how often a reader is told of changes: an agent that changes its mind all the time is no
	// reason to fill the reader's line.
	changeEvery, changeBurst = 250 * time.Millisecond, 20
)

// Names of events beside the states'.
const (
	eventReady   = "ready"
	eventWarning = "warning"
)

// warning is what goes with eventWarning.
type warning struct {
	Deadline    time.Time `json:"deadline"`
	SecondsLeft float64   `json:"secondsLeft"`
}

// streamEvents sends what becomes of a user's agent (SSE) until the client hangs up: the present state at once. Of states that
// follow each other faster than the reader reads, or than changeEvery, the last one comes.
func (g *Gateway) streamEvents(w http.ResponseWriter, r *http.Request, user string) error {
	release, ok := take(g.limiter.streams)
	if !ok {
		g.options.Metrics.limited.WithLabelValues(limitedStreams).Inc()
		return fmt.Errorf("%w: %d streams of events are open", errLimited, cap(g.limiter.streams))
	}
	defer release()
	g.options.Metrics.streams.Inc()
	defer g.options.Metrics.streams.Dec()
	changed, cancel := g.fleet.listen(Name(user))
	defer cancel()
	last, _, err := g.see(user)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	pace := rate.NewLimiter(rate.Every(changeEvery), changeBurst)
	controller := http.NewResponseController(w)
	last = Status{}
	for {
		now, _, err := g.see(user)
		if err != nil {
			return nil // it has begun, and the next one will be told
		}
		_ = controller.SetWriteDeadline(time.Now().Add(writeTimeout))
		if g.writeChanges(w, &last, &now) != nil || controller.Flush() != nil {
			return nil
		}
		last = now
		select {
		case <-r.Context().Done():
			return nil
		case <-g.draining:
			return nil
		case <-changed:
			now := g.options.Now()
			select {
			case <-r.Context().Done():
			case <-g.draining:
			case <-time.After(pace.ReserveN(now, 1).DelayFrom(now)):
			}
		case <-beat.C:
			if _, err := io.WriteString(w, ": alive\n\n"); err != nil {
				return nil
			}
		}
	}
}

// writeChanges writes an event for each thing that is news.
func (g *Gateway) writeChanges(w io.Writer, last, now *Status) error {
	if now.State != last.State {
		if err := writeEvent(w, string(now.State), now); err != nil {
			return err
		}
	}
	if now.Ready && !last.Ready {
		if err := writeEvent(w, eventReady, now); err != nil {
			return err
		}
	}
	if !now.Deadline.IsZero() && !now.Deadline.Equal(last.Deadline) {
		return writeEvent(w, eventWarning, warning{now.Deadline, now.Deadline.Sub(g.options.Now()).Seconds()})
	}
	return nil
}

func writeEvent(w io.Writer, name string, data any) error {
	encoded, err := json.Marshal(data)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", name, encoded)
	return err
}

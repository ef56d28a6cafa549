package idle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"
)

const (
	// maxBody bounds a request, in bytes.
	maxBody = 64 << 10

	// heartbeat keeps a stream of events from looking dead.
	heartbeat = 30 * time.Second
)

// Handler serves the whole API, for the agent. It is described in docs/lifecycle-manager.openapi.yaml.
func Handler(m *Manager) http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, f func(*http.Request) (any, error)) { mux.Handle(pattern, endpoint(f)) }
	handle("GET /v1/status", func(*http.Request) (any, error) { return m.Status(), nil })
	handle("POST /v1/activity", m.postActivity)
	handle("POST /v1/snooze", m.postSnooze)
	handle("PUT /v1/triggers", m.putTriggers)
	handle("PUT /v1/owners/{owner}/triggers", m.putTriggers)
	handle("DELETE /v1/triggers", m.deleteTriggers)
	handle("DELETE /v1/owners/{owner}/triggers", m.deleteTriggers)
	handle("PUT /v1/triggers/{id}", m.putTrigger)
	handle("PUT /v1/owners/{owner}/triggers/{id}", m.putTrigger)
	handle("DELETE /v1/triggers/{id}", m.deleteTrigger)
	handle("DELETE /v1/owners/{owner}/triggers/{id}", m.deleteTrigger)
	handle("POST /v1/leases", m.postLease)
	handle("POST /v1/owners/{owner}/leases", m.postLease)
	handle("DELETE /v1/leases/{id}", m.deleteTrigger)
	handle("DELETE /v1/owners/{owner}/leases/{id}", m.deleteTrigger)
	subscribers := &slots{max: maxOwnSubscribers}
	events := func(w http.ResponseWriter, r *http.Request) { serveEvents(w, r, m, subscribers, false) }
	mux.HandleFunc("GET /v1/events", events)
	mux.HandleFunc("GET /metrics", m.serveMetrics)
	return mux
}

// PublicHandler serves the part that the gateway may use over the network: it sees, and it may keep the agent for a while,
// but not for ever. It takes that from everybody; ServeNetwork can tell the gateway from others.
func PublicHandler(m *Manager) http.Handler { return newNetwork(m, nil, slog.New(slog.DiscardHandler)) }

// endpoint answers with JSON, or with 204 if there is nothing to say.
type endpoint func(*http.Request) (any, error)

// ServeHTTP implements http.Handler.
func (e endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	answer, err := e(r)
	switch {
	case err != nil:
		writeJSON(w, codeOf(err), map[string]string{"error": err.Error()})
	case answer == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		writeJSON(w, http.StatusOK, answer)
	}
}

func codeOf(err error) int {
	switch {
	case errors.Is(err, ErrUnauthorized):
		return http.StatusUnauthorized
	case errors.Is(err, ErrStopping):
		return http.StatusConflict
	case errors.Is(err, ErrSnoozeSpent), errors.Is(err, ErrTooMany):
		return http.StatusUnprocessableEntity
	case errors.Is(err, errRate):
		return http.StatusTooManyRequests
	case errors.As(err, new(*http.MaxBytesError)):
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusBadRequest
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // who has hung up cannot be told
}

// decode reads a body strictly. With optional there need not be one.
func decode[T any](r *http.Request, optional bool) (T, error) {
	var v T
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(&v)
	if optional && errors.Is(err, io.EOF) {
		return v, nil
	}
	if err != nil {
		return v, fmt.Errorf("body: %w", err)
	}
	if d.More() {
		return v, errors.New("body: there is something after the JSON value")
	}
	return v, nil
}

type activityRequest struct {
	Source string `json:"source"`
}

func (m *Manager) postActivity(r *http.Request) (any, error) {
	body, err := decode[activityRequest](r, true)
	if err != nil {
		return nil, err
	}
	if body.Source == "" {
		body.Source = "api"
	}
	if err := checkName("source", body.Source); err != nil {
		return nil, err
	}
	return nil, m.RecordActivity(body.Source)
}

// ownerOf returns the owner that the path names; one that names none is about the owner without a name.
func (m *Manager) ownerOf(r *http.Request) *Owner { return m.Owner(r.PathValue("owner")) }

type triggersRequest struct {
	Triggers []string `json:"triggers"`
}

func (m *Manager) putTriggers(r *http.Request) (any, error) {
	body, err := decode[triggersRequest](r, false)
	if err != nil {
		return nil, err
	}
	return nil, m.ownerOf(r).UpdateTriggers(body.Triggers...)
}

func (m *Manager) deleteTriggers(r *http.Request) (any, error) {
	return nil, m.ownerOf(r).UpdateTriggers()
}

type triggerRequest struct {
	Reason string `json:"reason"`
}

func (m *Manager) putTrigger(r *http.Request) (any, error) {
	body, err := decode[triggerRequest](r, true)
	if err != nil {
		return nil, err
	}
	return nil, m.ownerOf(r).AddTrigger(r.PathValue("id"), body.Reason)
}

// deleteTrigger ends a lease as well: the two share their ids.
func (m *Manager) deleteTrigger(r *http.Request) (any, error) {
	return nil, m.ownerOf(r).RemoveTrigger(r.PathValue("id"))
}

type leaseRequest struct {
	ID         string  `json:"id"`
	TTLSeconds float64 `json:"ttlSeconds"`
}

type leaseAnswer struct {
	ID        string    `json:"id"`
	ExpiresAt time.Time `json:"expiresAt"`
}

func (m *Manager) postLease(r *http.Request) (any, error) {
	body, err := decode[leaseRequest](r, false)
	if err != nil {
		return nil, err
	}
	until, err := m.ownerOf(r).Lease(body.ID, fromSeconds(body.TTLSeconds))
	if err != nil {
		return nil, err
	}
	return leaseAnswer{body.ID, wall(until)}, nil
}

type snoozeRequest struct {
	Seconds float64 `json:"seconds"`
}

type snoozeAnswer struct {
	GrantedSeconds float64   `json:"grantedSeconds"`
	Deadline       time.Time `json:"deadline"`
}

func (m *Manager) postSnooze(r *http.Request) (any, error) {
	body, err := decode[snoozeRequest](r, false)
	if err != nil {
		return nil, err
	}
	deadline, granted, err := m.Snooze(fromSeconds(body.Seconds))
	if err != nil {
		return nil, err
	}
	return snoozeAnswer{seconds(granted), wall(deadline)}, nil
}

// fromSeconds keeps absurd numbers from wrapping around.
func fromSeconds(s float64) time.Duration {
	return time.Duration(max(-1, min(s, maxDuration.Seconds())) * float64(time.Second))
}

// serveEvents streams events (SSE) until the client hangs up, takes too long to read, or gives its place to another one.
func serveEvents(w http.ResponseWriter, r *http.Request, m *Manager, subscribers *slots, signed bool) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	place := subscribers.acquire(remote(r), signed, cancel)
	if place == nil {
		w.Header().Set("Retry-After", "30")
		writeJSON(w, http.StatusServiceUnavailable,
			map[string]string{"error": fmt.Sprintf("there are %d streams of events already, and the most are of this address", subscribers.max)})
		return
	}
	defer place.release()
	controller := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	events, unsubscribe := m.Subscribe()
	defer unsubscribe()
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		var write func() error
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
			write = func() error { _, err := io.WriteString(w, ": alive\n\n"); return err }
		case e := <-events:
			write = func() error { return writeEvent(w, e) }
		}
		_ = controller.SetWriteDeadline(time.Now().Add(writeTimeout)) // a recorder in a test has none
		if write() != nil || controller.Flush() != nil {
			return
		}
	}
}

func writeEvent(w io.Writer, e Event) error {
	var data any = e.State
	if e.Warning != nil {
		data = e.Warning
	}
	encoded, err := json.Marshal(data)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", e.Name, encoded)
	return err
}

// serveMetrics writes the few gauges there are in Prometheus' text format: its client library would double the program.
func (m *Manager) serveMetrics(w http.ResponseWriter, _ *http.Request) {
	s := m.Status()
	left := -1.0
	if s.Deadline != nil {
		left = time.Until(*s.Deadline).Seconds()
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	for _, g := range []struct {
		name, help string
		value      float64
	}{
		{"agent_lifecycle_agent_triggers", "Triggers and leases that keep the agent alive.", float64(len(m.Triggers()))},
		{"agent_lifecycle_agent_last_activity_timestamp_seconds", "When the agent was active last, in Unix seconds.",
			float64(s.LastActivity.At.UnixMilli()) / 1000},
		{"agent_lifecycle_agent_seconds_to_stop", "Time until the agent stops if nothing happens; -1 if something keeps it alive.", left},
	} {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s gauge\n%s %g\n", g.name, g.help, g.name, g.name, g.value)
	}
	fmt.Fprintf(w, "# HELP agent_lifecycle_agent_state 1 for the state of the agent.\n# TYPE agent_lifecycle_agent_state gauge\n"+
		"agent_lifecycle_agent_state{state=%q} 1\n", s.State)
}

package gateway

import (
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/time/rate"
)

// A lifecycle manager says something when its agent begins or ends to be idle, and a heartbeat of 10 bytes each 30 s. This is far more
// than that, and so little that an agent which sends as fast as it can costs the gateway next to nothing.
const (
	// eventBurst and eventsPerSecond bound the events of one agent.
	eventBurst, eventsPerSecond = 60, 1

	// byteBurst and bytesPerSecond bound what is read of one agent, whatever it means.
	byteBurst, bytesPerSecond = 32 << 10, 1 << 10
)

// errFlood ends a stream whose agent says more than its budget allows.
var errFlood = errors.New("the agent says too much of itself")

// budget is what one agent may say of itself. It is the agent's and not a connection's, so that nothing is won by connecting anew.
type budget struct {
	now           func() time.Time
	bytes, events *rate.Limiter
}

func newBudget(now func() time.Time) *budget {
	return &budget{now: now, bytes: rate.NewLimiter(bytesPerSecond, byteBurst), events: rate.NewLimiter(eventsPerSecond, eventBurst)}
}

// event takes one event. The error is errFlood.
func (b *budget) event() error {
	if !b.events.AllowN(b.now(), 1) {
		return fmt.Errorf("%w: more than %d events, and %d a second", errFlood, eventBurst, eventsPerSecond)
	}
	return nil
}

// reader returns a Reader that takes every byte from the budget, and ends with errFlood.
func (b *budget) reader(r io.Reader) io.Reader { return &budgetReader{b, r} }

type budgetReader struct {
	*budget
	next io.Reader
}

// Read implements io.Reader.
func (r *budgetReader) Read(p []byte) (int, error) {
	n, err := r.next.Read(p[:min(len(p), maxLine)])
	if !r.bytes.AllowN(r.now(), n) {
		return 0, fmt.Errorf("%w: more than %d bytes, and %d a second", errFlood, byteBurst, bytesPerSecond)
	}
	return n, err
}

package events

import (
	"math/rand/v2"
	"time"
)

// backoff doubles what to wait from least to most. Half of it is chance, so that replicas which lost the same server do not
// come back to it together.
type backoff struct {
	least, most time.Duration

	current time.Duration
}

func (b *backoff) next() time.Duration {
	b.current = min(max(2*b.current, b.least), b.most)
	return b.current/2 + rand.N(b.current/2+1)
}

func (b *backoff) reset() { b.current = 0 }

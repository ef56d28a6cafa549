package breaker

import (
	"fmt"
	"math"
	"time"
)

// Limits are how many deletions there may be.
type Limits struct {
	// Burst is how many there may be at once, PerMinute how many a minute in the long run. Both are at least 1.
	Burst, PerMinute int
}

// State is what is remembered. The zero State is a closed breaker from which nothing was ever taken.
type State struct {
	// Open says that nothing may be deleted until the breaker is released.
	Open bool `json:"open"`

	// Since is when it opened, or was last released; zero if neither ever happened.
	Since time.Time `json:"since,omitzero"`

	// Reason says why it is open.
	Reason string `json:"reason,omitempty"`

	// ReleasedBy is who released it last.
	ReleasedBy string `json:"releasedBy,omitempty"`

	// Taken are the tokens that have been taken and have not grown back by Updated.
	Taken float64 `json:"taken"`

	// Updated is when Taken was right. Replicas write it by their own clocks.
	Updated time.Time `json:"updated,omitzero"`
}

// Tokens are how many could be taken now.
func (s *State) Tokens(limits Limits, now time.Time) int {
	return max(0, int(math.Floor(float64(limits.Burst)-s.taken(limits, now)+rounding)))
}

// rounding keeps a token that is there but for the last bit of a float.
const rounding = 1e-9

// taken lets tokens grow back. A clock behind the one that wrote last gives none.
func (s *State) taken(limits Limits, now time.Time) float64 {
	passed := max(0, now.Sub(s.Updated).Minutes())
	return max(0, s.Taken-passed*float64(limits.PerMinute))
}

// Take takes up to n tokens and returns how many it got. Getting fewer opens the breaker; an open one gives none.
func (s *State) Take(n int, limits Limits, now time.Time) int {
	if s.Open {
		return 0
	}
	granted := min(n, s.Tokens(limits, now))
	s.Taken = s.taken(limits, now) + float64(granted)
	if now.After(s.Updated) {
		s.Updated = now
	}
	if granted < n {
		s.Open, s.Since = true, now
		s.Reason = fmt.Sprintf("more than %d deletions at once, or %d a minute", limits.Burst, limits.PerMinute)
	}
	return granted
}

// Release closes the breaker and fills the bucket. It returns false if there was nothing to do.
func (s *State) Release(by string, now time.Time) bool {
	if !s.Open {
		return false
	}
	*s = State{Since: now, ReleasedBy: by, Updated: now}
	return true
}

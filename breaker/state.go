package breaker

import (
	"fmt"
	"slices"
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

	// OpenedBy is who opened it by hand; empty if it is closed or opened by itself.
	OpenedBy string `json:"openedBy,omitempty"`

	// Since is when it opened, or was last closed; zero if neither ever happened.
	Since time.Time `json:"since,omitzero"`

	// Reason says why it is open.
	Reason string `json:"reason,omitempty"`

	// ReleasedBy is who released it last; empty if what closed it was that deletions were given back.
	ReleasedBy string `json:"releasedBy,omitempty"`

	// Taken are the tokens that have been taken and have not grown back by Updated.
	Taken float64 `json:"taken"`

	// Counted are the keys that were counted last, at most maxCounted, the newest last. Who asks again for one of them, be it
	// of another replica, is let pass and not counted twice.
	Counted []string `json:"-"`

	// AskedAgain is when a counted key was last asked for after the first time. As long as that request may still end
	// in a deletion, nothing is given back for the key.
	AskedAgain map[string]time.Time `json:"-"`

	// Updated is when Taken was right. Replicas write it by their own clocks.
	Updated time.Time `json:"updated,omitzero"`
}

// rounding keeps a token that is there but for the last bit of a float.
const rounding = 1e-9

// taken lets tokens grow back. A clock behind the one that wrote last gives none.
func (s *State) taken(limits Limits, now time.Time) float64 {
	passed := max(0, now.Sub(s.Updated).Minutes())
	return max(0, s.Taken-passed*float64(limits.PerMinute))
}

// maxCounted bounds the keys that are remembered: many times what is let go while anybody asks again.
const maxCounted = 256

// Take counts the keys, and returns for each whether it may go. One for which there is no token opens the breaker; an open one
// gives none, but lets pass what was counted before.
func (s *State) Take(keys []string, limits Limits, now time.Time) []bool {
	granted := make([]bool, len(keys))
	if !s.Open {
		s.Taken = s.taken(limits, now)
		if now.After(s.Updated) {
			s.Updated = now
		}
	}
	for i, key := range keys {
		switch {
		case slices.Contains(s.Counted, key):
			granted[i] = true
			s.askedAgain(key, now)
		case s.Open:
		case float64(limits.Burst)-s.Taken+rounding >= 1:
			granted[i] = true
			s.Taken++
			s.Counted = append(s.Counted, key)
		default:
			s.Open, s.Since = true, now
			s.Reason = fmt.Sprintf("more than %d deletions at once, or %d a minute", limits.Burst, limits.PerMinute)
		}
	}
	s.Counted = s.Counted[max(0, len(s.Counted)-maxCounted):]
	return granted
}

func (s *State) askedAgain(key string, now time.Time) {
	if s.AskedAgain == nil {
		s.AskedAgain = map[string]time.Time{}
	}
	s.AskedAgain[key] = now
}

// GiveBack takes back what was counted for keys whose deletion did not come about; the others it passes over. An
// opening that rests on them is undone: with their tokens there would have been room. A key that was asked for again
// less than settled ago stays counted: the replica that asked gives it back if that comes to nothing, too. It returns
// false if there was nothing to do.
func (s *State) GiveBack(keys []string, limits Limits, now time.Time, settled time.Duration) bool {
	before := len(s.Counted)
	s.Counted = slices.DeleteFunc(slices.Clone(s.Counted), func(key string) bool {
		again, asked := s.AskedAgain[key]
		return slices.Contains(keys, key) && (!asked || now.Sub(again) >= settled)
	})
	returned := before - len(s.Counted)
	if returned == 0 {
		return false
	}
	if !s.Open {
		s.Taken = s.taken(limits, now)
	}
	if now.After(s.Updated) {
		s.Updated = now
	}
	s.Taken = max(0, s.Taken-float64(returned))
	if s.Open && s.OpenedBy == "" && float64(limits.Burst)-s.Taken+rounding >= 1 {
		s.Open, s.Since, s.Reason, s.ReleasedBy = false, now, "", ""
	}
	return true
}

// OpenByHand opens the breaker in the name of the user by. Only Release closes it then. One that has opened by itself
// is that user's from now on, and the reason says both. It returns false if a user has opened it by hand already;
// then nothing changes.
//
// What was counted is forgotten, so that nobody is let pass who was counted before, and nothing that is given back
// closes the breaker: servers that know nothing of OpenedBy hold to that, too.
func (s *State) OpenByHand(by, reason string, now time.Time) bool {
	if s.Open && s.OpenedBy != "" {
		return false
	}
	if s.Open {
		reason += fmt.Sprintf("; before that it had opened by itself at %s: %s", s.Since.UTC().Format(time.RFC3339), s.Reason)
	}
	*s = State{Open: true, OpenedBy: by, Reason: reason, Since: now, Taken: s.Taken, Updated: now}
	return true
}

// Release closes the breaker and fills the bucket. It returns false if there was nothing to do.
func (s *State) Release(by string, now time.Time) bool {
	if !s.Open {
		return false
	}
	*s = State{Since: now, ReleasedBy: by, Updated: now, Counted: s.Counted, AskedAgain: s.AskedAgain}
	return true
}

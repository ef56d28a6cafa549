package breaker

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// settled is how long an answer may take to become a deletion.
const settled = 35 * time.Second

var (
	limits = Limits{Burst: 10, PerMinute: 6}
	start  = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
)

func TestTake(t *testing.T) {
	type step struct {
		after   time.Duration // since start
		n, want int
		open    bool
	}
	for name, steps := range map[string][]step{
		"the burst, and not one more":       {{0, 10, 10, false}, {0, 1, 0, true}},
		"more than the burst at once":       {{0, 11, 10, true}, {time.Hour, 1, 0, true}},
		"tokens grow back":                  {{0, 10, 10, false}, {10 * time.Second, 1, 1, false}, {20 * time.Second, 2, 1, true}},
		"no more than the burst grows back": {{0, 10, 10, false}, {time.Hour, 10, 10, false}, {time.Hour, 1, 0, true}},
		"it stays open":                     {{0, 11, 10, true}, {24 * time.Hour, 1, 0, true}},
		"a clock that is behind":            {{time.Minute, 10, 10, false}, {0, 1, 0, true}},
		"a clock that is behind does not let tokens grow twice": {
			{time.Minute, 10, 10, false}, {70 * time.Second, 1, 1, false}, {time.Minute, 0, 0, false}, {70 * time.Second, 1, 0, true}},
		"at the pace, forever": {{0, 10, 10, false}, {time.Minute, 6, 6, false}, {2 * time.Minute, 6, 6, false}, {3 * time.Minute, 6, 6, false}},
	} {
		t.Run(name, func(t *testing.T) {
			var s State
			for i, step := range steps {
				got := takeNew(&s, step.n, start.Add(step.after))
				if got != step.want || s.Open != step.open {
					t.Fatalf("step %d: got %d, open %v; want %d, %v (%+v)", i, got, s.Open, step.want, step.open, s)
				}
			}
		})
	}
}

func TestRelease(t *testing.T) {
	var s State
	if s.Release("alice", start) {
		t.Error("a closed breaker was released")
	}
	takeNew(&s, 11, start)
	if !s.Release("alice", start.Add(time.Hour)) || s.Open || s.ReleasedBy != "alice" || s.Reason != "" {
		t.Errorf("after the release: %+v", s)
	}
	if got := takeNew(&s, 10, start.Add(time.Hour)); got != 10 {
		t.Errorf("got %d of a full bucket, want 10", got)
	}
}

// takeNew takes for n keys that were never there, and returns how many were granted.
func takeNew(s *State, n int, now time.Time) int {
	keys := make([]string, n)
	for i := range keys {
		key++
		keys[i] = fmt.Sprint("key-", key)
	}
	count := 0
	for _, granted := range s.Take(keys, limits, now) {
		if granted {
			count++
		}
	}
	return count
}

var key int

func TestTakeAgain(t *testing.T) {
	var s State
	for range 50 {
		if got := s.Take([]string{"a", "b", "a"}, limits, start); !got[0] || !got[1] || !got[2] {
			t.Fatalf("got %v", got)
		}
	}
	if s.Taken != 2 || s.Open {
		t.Errorf("two keys took %v, open %v", s.Taken, s.Open)
	}
	takeNew(&s, 20, start)
	if got := s.Take([]string{"a", "c"}, limits, start); !got[0] || got[1] {
		t.Errorf("open: got %v; what was counted before passes, and nothing else", got)
	}
	for range 100 {
		s.Release("alice", start)
		takeNew(&s, 10, start.Add(time.Hour))
	}
	if len(s.Counted) > maxCounted {
		t.Errorf("%d keys are remembered", len(s.Counted))
	}
}

func TestGiveBack(t *testing.T) {
	var s State
	if s.GiveBack([]string{"a"}, limits, start, settled) {
		t.Error("something was given back that was never taken")
	}
	s.Take([]string{"a", "b"}, limits, start)
	if !s.GiveBack([]string{"a", "c"}, limits, start, settled) || s.Taken != 1 || len(s.Counted) != 1 || s.Counted[0] != "b" {
		t.Errorf("after one of two: %+v", s)
	}
	if s.GiveBack([]string{"a"}, limits, start, settled) {
		t.Error("given back twice")
	}
	// The ninth that is taken beside b is the last one that there is room for.
	if got := takeNew(&s, 10, start); got != 9 || !s.Open {
		t.Fatalf("got %d, open %v", got, s.Open)
	}
	later := start.Add(time.Minute)
	if !s.GiveBack([]string{"b"}, limits, later, settled) || s.Open || s.Reason != "" || !s.Since.Equal(later) || s.Taken != 9 {
		t.Errorf("an opening that rests on what was given back: %+v", s)
	}
	if got := takeNew(&s, 2, later); got != 1 || !s.Open {
		t.Errorf("got %d, open %v; want the token that was given back, and not one more", got, s.Open)
	}
}

func TestOpenByHand(t *testing.T) {
	var s State
	s.Take([]string{"a"}, limits, start)
	later := start.Add(time.Minute)
	if !s.OpenByHand("alice", "look at v2", start) || !s.Open || s.OpenedBy != "alice" || s.Reason != "look at v2" || !s.Since.Equal(start) {
		t.Fatalf("opened: %+v", s)
	}
	opened := s
	if s.OpenByHand("bob", "me too", later) || s.OpenedBy != opened.OpenedBy || s.Reason != opened.Reason || !s.Since.Equal(start) {
		t.Errorf("opened again: %+v", s)
	}
	if got := s.Take([]string{"a", "b"}, limits, later); got[0] || got[1] {
		t.Errorf("got %v; no key may pass, also none that was counted before", got)
	}
	if s.GiveBack([]string{"a"}, limits, later, settled) || !s.Open {
		t.Errorf("what was given back closed it: %+v", s)
	}
	if !s.Release("bob", later) || s.Open || s.OpenedBy != "" || s.Reason != "" || s.ReleasedBy != "bob" {
		t.Errorf("released: %+v", s)
	}
}

// What has opened by itself may close by itself, unless a user takes it over.
func TestTakeOver(t *testing.T) {
	var s State
	s.Take([]string{"a"}, limits, start)
	takeNew(&s, 20, start)
	if !s.OpenByHand("alice", "it is v2", start.Add(time.Minute)) || s.OpenedBy != "alice" {
		t.Fatalf("taken over: %+v", s)
	}
	if want := "it is v2; before that it had opened by itself at 2026-01-02T03:04:05Z: more than 10 deletions at once, or 6 a minute"; s.Reason != want {
		t.Errorf("reason %q, want %q", s.Reason, want)
	}
	if s.GiveBack([]string{"a"}, limits, start.Add(2*time.Minute), settled) || !s.Open {
		t.Errorf("what was given back closed it: %+v", s)
	}
}

func TestCheckReason(t *testing.T) {
	for reason, want := range map[string]string{
		"agents of v2 stop while they work": "",
		"Größe":                             "",
		"":                                  "is empty",
		" \t":                               "is empty",
		"one\ntwo":                          "one line of text",
		"\x1b[2J":                           "one line of text",
		"\xff":                              "UTF-8",
		strings.Repeat("ä", MaxReason):      "",
		strings.Repeat("ä", MaxReason+1):    "201 characters",
	} {
		err := CheckReason(reason)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", reason, err, want)
		}
	}
}

// Two replicas accept the deletion of one agent, and what the first has accepted comes to nothing: the second one's
// may yet come about.
func TestGiveBackOfWhatIsAskedForAgain(t *testing.T) {
	var s State
	s.Take([]string{"a"}, limits, start)
	s.Take([]string{"a"}, limits, start.Add(30*time.Second))
	if s.GiveBack([]string{"a"}, limits, start.Add(36*time.Second), settled) || len(s.Counted) != 1 {
		t.Errorf("given back by the first, while the second may be deleted: %+v", s)
	}
	if !s.GiveBack([]string{"a"}, limits, start.Add(66*time.Second), settled) || s.Taken != 0 || len(s.Counted) != 0 {
		t.Errorf("given back by the second: %+v", s)
	}
	// An open breaker lets it pass as well.
	s = State{}
	s.Take([]string{"a"}, limits, start)
	takeNew(&s, 20, start)
	if got := s.Take([]string{"a"}, limits, start.Add(30*time.Second)); !got[0] || !s.Open {
		t.Fatalf("got %v of %+v", got, s)
	}
	if s.GiveBack([]string{"a"}, limits, start.Add(36*time.Second), settled) || !s.Open {
		t.Errorf("closed by what may be deleted: %+v", s)
	}
}

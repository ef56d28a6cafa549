package gateway

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

func TestLimits(t *testing.T) {
	now := time.Unix(0, 0)
	l := newLimiter(Limits{
		Requests: map[lifecycle.UserType]Rate{lifecycle.Free: {PerSecond: 0.5, Burst: 2}, lifecycle.Paid: {PerSecond: 1, Burst: 4}},
		Wakes:    map[lifecycle.UserType]Rate{lifecycle.Free: {PerSecond: 0.001, Burst: 1}},
		Held:     1,
	}, func() time.Time { return now })
	take2 := func(user string, userType lifecycle.UserType, want int) {
		t.Helper()
		got := 0
		for range 10 {
			if _, ok := l.request(user, userType); ok {
				got++
			}
		}
		if got != want {
			t.Errorf("%s had %d requests, want %d", user, got, want)
		}
	}
	take2("a", lifecycle.Free, 2)
	take2("b", lifecycle.Free, 2)
	take2("c", lifecycle.Paid, 4)
	take2("d", lifecycle.Enterprise, 10)
	if wait, ok := l.request("a", lifecycle.Free); ok || wait != 2*time.Second {
		t.Errorf("the next one in %s, %t; want 2s", wait, ok)
	}
	now = now.Add(2 * time.Second)
	take2("a", lifecycle.Free, 1)

	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := l.wake(ctx, lifecycle.Free); err != nil {
		t.Error(err)
	}
	if err := l.wake(ctx, lifecycle.Free); !errors.Is(err, errLimited) {
		t.Errorf("a second agent: %v", err)
	}
	if err := l.wake(ctx, lifecycle.Paid); err != nil {
		t.Errorf("another type: %v", err)
	}

	release, ok := take(l.held)
	if _, again := take(l.held); !ok || again {
		t.Errorf("places: %t, then %t", ok, again)
	}
	release()
	if _, ok := take(l.held); !ok {
		t.Error("a place that was given back is taken")
	}
	for i := range maxBuckets + 10 {
		l.request(fmt.Sprint(i), lifecycle.Free)
	}
	if len(l.buckets) > maxBuckets {
		t.Errorf("%d buckets are remembered", len(l.buckets))
	}
}

// Users of one type who wait for agents that do not come leave room for the others.
func TestHold(t *testing.T) {
	l := newLimiter(Limits{Held: 4, Streams: 1}, time.Now)
	release, ok := l.hold(lifecycle.Anonymous)
	if !ok {
		t.Fatal("there is no place")
	}
	for _, tt := range []struct {
		userType lifecycle.UserType
		want     bool
	}{
		{lifecycle.Anonymous, true}, {lifecycle.Anonymous, false}, {lifecycle.Paid, true}, {"", true}, {lifecycle.Enterprise, false},
	} {
		if _, ok := l.hold(tt.userType); ok != tt.want {
			t.Errorf("%q: a place %t, want %t", tt.userType, ok, tt.want)
		}
	}
	release()
	if _, ok := l.hold("unheard of"); !ok {
		t.Error("a place that was given back is not there")
	}
	if _, ok := l.hold(lifecycle.Enterprise); ok {
		t.Error("there are more places than there are")
	}
	if len(l.heldOf[lifecycle.Enterprise]) != 0 || len(l.heldOf[lifecycle.Anonymous]) != 1 {
		t.Errorf("enterprise has %d places, anonymous %d", len(l.heldOf[lifecycle.Enterprise]), len(l.heldOf[lifecycle.Anonymous]))
	}
}

package webhook

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestShares(t *testing.T) {
	for _, tt := range []struct{ bytes, decoded, want int64 }{
		{0, 0, 1}, {shareBytes - 1, shareDecoded - 1, 1}, {shareBytes, 0, 2}, {0, shareDecoded, 2}, {3 * shareBytes, 7 * shareDecoded, 8},
	} {
		if got := shares(tt.bytes, tt.decoded); got != tt.want {
			t.Errorf("%d bytes, %d decoded: %d shares, want %d", tt.bytes, tt.decoded, got, tt.want)
		}
	}
}

func TestLimiterCountsBySize(t *testing.T) {
	ctx := context.Background()
	l := newLimiter(8)
	l.maxWait = time.Millisecond
	big, err := l.acquire(ctx, 3)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.acquire(ctx, 2); !errors.Is(err, errOverload) {
		t.Errorf("two shares beside three of four: %v, want errOverload", err)
	}
	big()
	all, err := l.acquire(ctx, 100)
	if err != nil {
		t.Fatalf("more than there is, alone: %v", err)
	}
	if _, err := l.acquire(ctx, 2); !errors.Is(err, errOverload) {
		t.Errorf("beside one that takes it all: %v, want errOverload", err)
	}
	all()
}

// Large requests, those that wait among them, keep no small one out.
func TestLargeDoNotBlockSmall(t *testing.T) {
	ctx := context.Background()
	l := newLimiter(8)
	l.maxWait = time.Minute
	if _, err := l.acquire(ctx, 3); err != nil {
		t.Fatal(err)
	}
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { _, _ = l.acquire(waiting, 4) }()
	waitUntil(t, "a large one waits", func() bool { return l.large.waiting.Load() == 1 })
	for i := range 8 {
		soon, cancel := context.WithTimeout(ctx, time.Second)
		_, err := l.acquire(soon, 1)
		cancel()
		if err != nil {
			t.Errorf("small one %d: %v", i, err)
		}
	}
}

func TestLimiterWaits(t *testing.T) {
	l := newLimiter(1)
	l.maxWait = time.Minute
	release, err := l.acquire(context.Background(), 1)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error)
	go func() {
		_, err := l.acquire(context.Background(), 1)
		got <- err
	}()
	waitUntil(t, "one waits", func() bool { return l.small.waiting.Load() == 1 })
	release()
	if err := <-got; err != nil {
		t.Errorf("after the first is done: %v", err)
	}
	if n := l.small.waiting.Load(); n != 0 {
		t.Errorf("%d still wait", n)
	}
}

func TestLimiterBoundsWhoWaits(t *testing.T) {
	l := newLimiter(1)
	l.small.maxWaiting, l.maxWait = 1, time.Minute
	if _, err := l.acquire(context.Background(), 1); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	got := make(chan error)
	go func() {
		_, err := l.acquire(ctx, 1)
		got <- err
	}()
	waitUntil(t, "one waits", func() bool { return l.small.waiting.Load() == 1 })
	if _, err := l.acquire(ctx, 1); !errors.Is(err, errOverload) {
		t.Errorf("behind the most that may wait: %v, want errOverload", err)
	}
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("a client that has gone: %v", err)
	}
}

// waitUntil polls a condition for as long as a slow machine may need.
func waitUntil(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

package webhook

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestLimiterCountsBySize(t *testing.T) {
	ctx := context.Background()
	l := newLimiter(4)
	l.maxWait = time.Millisecond
	big, err := l.acquire(ctx, 3*shareBytes-1)
	if err != nil {
		t.Fatal(err)
	}
	small, err := l.acquire(ctx, 1)
	if err != nil {
		t.Fatalf("beside three shares of four: %v", err)
	}
	if _, err := l.acquire(ctx, 1); !errors.Is(err, errOverload) {
		t.Errorf("beyond four: %v, want errOverload", err)
	}
	small()
	big()
	all, err := l.acquire(ctx, 100*shareBytes)
	if err != nil {
		t.Fatalf("more than there is, alone: %v", err)
	}
	if _, err := l.acquire(ctx, 1); !errors.Is(err, errOverload) {
		t.Errorf("beside one that takes it all: %v, want errOverload", err)
	}
	all()
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
	waitUntil(t, "one waits", func() bool { return l.waiting.Load() == 1 })
	release()
	if err := <-got; err != nil {
		t.Errorf("after the first is done: %v", err)
	}
	if n := l.waiting.Load(); n != 0 {
		t.Errorf("%d still wait", n)
	}
}

func TestLimiterBoundsWhoWaits(t *testing.T) {
	l := newLimiter(1)
	l.maxWaiting, l.maxWait = 1, time.Minute
	if _, err := l.acquire(context.Background(), 1); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	got := make(chan error)
	go func() {
		_, err := l.acquire(ctx, 1)
		got <- err
	}()
	waitUntil(t, "one waits", func() bool { return l.waiting.Load() == 1 })
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

package webhook

import (
	"errors"
	"testing"
)

// begun is a body that is being read, and whether it was given up.
type begun struct {
	*heldBody
	given bool
}

func beginBody(t *testing.T, b *bodies, bytes int) *begun {
	t.Helper()
	body := &begun{}
	held, err := b.begin(func() { body.given = true })
	if err == nil && bytes > 0 {
		err = held.grow(bytes)
	}
	if err != nil {
		t.Fatal(err)
	}
	body.heldBody = held
	return body
}

func TestBodiesGiveUpTheOldest(t *testing.T) {
	b := newBodies(1, 1<<20) // room for small bodies: 192 KiB
	first, second := beginBody(t, b, 64<<10), beginBody(t, b, 64<<10)
	third := beginBody(t, b, 64<<10)
	if !first.given || second.given || third.given {
		t.Errorf("given up: %v, %v, %v; want the oldest alone", first.given, second.given, third.given)
	}
	if err := first.grow(1); !errors.Is(err, errSlow) {
		t.Errorf("a body that was given up goes on: %v", err)
	}
	if first.complete() || !second.complete() {
		t.Error("complete: want it of the second alone")
	}
	// What has been read is not given up any more: the third has to make room, and it is alone.
	if err := third.grow(64 << 10); !errors.Is(err, errOverload) || third.given {
		t.Errorf("beside a body that is complete: %v, want errOverload", err)
	}
	second.release()
	if b.small.used != 0 || b.large.used != 0 {
		t.Errorf("%d, %d bytes are held of no body", b.small.used, b.large.used)
	}
}

// Large bodies have room of their own.
func TestLargeBodiesLeaveSmallOnesAlone(t *testing.T) {
	b := newBodies(1, 1<<20)
	small := beginBody(t, b, 100<<10)
	for range 10 {
		beginBody(t, b, 1<<20)
	}
	if small.given {
		t.Error("a small body was given up for large ones")
	}
	if used := b.small.used; used != 100<<10+requestBytes {
		t.Errorf("small bodies hold %d bytes", used)
	}
	if b.large.used > b.large.limit {
		t.Errorf("large bodies hold %d bytes of %d", b.large.used, b.large.limit)
	}
	small.release()
	small.release()
	if b.small.used != 0 {
		t.Errorf("%d bytes are held of no body", b.small.used)
	}
}

// A thousand silent bodies hold little: next to nothing each, and the oldest make room for a new one.
func TestSilentBodiesHoldLittle(t *testing.T) {
	b := newBodies(DefaultMaxInFlight, DefaultMaxBody)
	for range 5000 {
		beginBody(t, b, firstChunk)
	}
	if b.small.used > b.small.limit || b.small.reading.Len() > int(b.small.limit/requestBytes) {
		t.Errorf("%d bodies hold %d bytes of %d", b.small.reading.Len(), b.small.used, b.small.limit)
	}
	if honest := beginBody(t, b, 64<<10); honest.given || !honest.complete() {
		t.Error("a body that comes at once was given up")
	}
}

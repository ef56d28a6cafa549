package webhook

import (
	"container/list"
	"errors"
	"sync"
)

// bodies bounds the memory of the bodies that are held, by what has come of them: no room is kept for bytes that have only
// been announced.
//
// Small and large bodies have room of their own, so that large ones never keep small ones out. When room runs short, the
// oldest body of its class that is still being read is given up: the API server sends a body within milliseconds, and what
// has been on its way for longer than all the others is a client that sends slowly.
type bodies struct {
	mu           sync.Mutex
	small, large bodyClass
}

// bodyClass is the room of the bodies of one size.
type bodyClass struct {
	limit, used int64

	// reading holds the bodies that are being read, the oldest first.
	reading list.List
}

const (
	// smallBody is the most memory, in bytes, that a body takes as a small one.
	smallBody = shareBytes

	// requestBytes is what a request takes beside its body: headers, its goroutine, the connection's buffers.
	requestBytes = 16 << 10

	// smallRoom is the room for small bodies, in bytes, for each request that may be answered at once, and largeRoom that for
	// large ones in bodies of the largest size.
	smallRoom = 192 << 10
	largeRoom = 3
)

// errSlow says that a body was given up for others.
var errSlow = errors.New("the body came too slowly, while there was no room left for the bodies of other requests")

func newBodies(maxInFlight int, maxBody int64) *bodies {
	b := &bodies{}
	b.small.limit, b.large.limit = smallRoom*int64(maxInFlight), largeRoom*(maxBody+requestBytes)
	b.small.reading.Init()
	b.large.reading.Init()
	return b
}

// heldBody is the room that one body has taken.
type heldBody struct {
	bodies  *bodies
	class   *bodyClass
	bytes   int64
	reading *list.Element // nil once it has been read, or given up
	lost    bool

	// giveUp ends the read that is under way. It is called with the lock of bodies held.
	giveUp func()
}

// begin takes room for a request whose body is about to be read.
func (b *bodies) begin(giveUp func()) (*heldBody, error) {
	h := &heldBody{bodies: b, class: &b.small, giveUp: giveUp}
	b.mu.Lock()
	defer b.mu.Unlock()
	h.reading = h.class.reading.PushBack(h)
	err := h.take(requestBytes)
	return h, err
}

// grow takes room for so many bytes more.
func (h *heldBody) grow(bytes int) error {
	h.bodies.mu.Lock()
	defer h.bodies.mu.Unlock()
	if h.lost {
		return errSlow
	}
	if h.class == &h.bodies.small && h.bytes+int64(bytes) > smallBody+requestBytes {
		held := h.bytes
		h.leave()
		h.class = &h.bodies.large
		h.reading = h.class.reading.PushBack(h)
		return h.take(held + int64(bytes))
	}
	return h.take(int64(bytes))
}

// take takes bytes of the class's room and gives up older bodies for them. The error is errSlow if that was this one, and
// errOverload if all the room is taken by bodies that have come.
func (h *heldBody) take(bytes int64) error {
	c := h.class
	for c.used+bytes > c.limit {
		oldest := c.reading.Front().Value.(*heldBody) // There is one: h itself is being read.
		if oldest == h {
			alone := c.reading.Len() == 1
			h.leave()
			h.lost = true
			if alone {
				return errOverload
			}
			return errSlow
		}
		oldest.leave()
		oldest.lost = true
		oldest.giveUp()
	}
	c.used += bytes
	h.bytes += bytes
	return nil
}

// leave gives all room back.
func (h *heldBody) leave() {
	h.class.used -= h.bytes
	h.bytes = 0
	if h.reading != nil {
		h.class.reading.Remove(h.reading)
		h.reading = nil
	}
}

// complete says that the body has been read; it keeps its room. It is false if the body was given up before.
func (h *heldBody) complete() bool {
	h.bodies.mu.Lock()
	defer h.bodies.mu.Unlock()
	if h.reading != nil {
		h.class.reading.Remove(h.reading)
		h.reading = nil
	}
	return !h.lost
}

// givenUp says whether the body was given up for others.
func (h *heldBody) givenUp() bool {
	h.bodies.mu.Lock()
	defer h.bodies.mu.Unlock()
	return h.lost
}

// release gives all room back. giveUp is not called any more from then on.
func (h *heldBody) release() {
	h.bodies.mu.Lock()
	defer h.bodies.mu.Unlock()
	h.leave()
}

package events

import (
	"context"
	"encoding/json"
	"sync"
)

// item is an event on its way.
type item struct {
	// event has its data in JSON.
	event Event

	// publishedID is the id under which it was offered to the stream; empty before the first attempt.
	publishedID string
}

// message is what is published: the event under its published id, in JSON.
func (i *item) message() ([]byte, error) {
	e := i.event
	e.ID = i.publishedID
	return json.Marshal(e)
}

// size is the length of the message; 0 if there is none.
func (i *item) size() int {
	message, err := i.message()
	if err != nil {
		return 0
	}
	return len(message)
}

// buffer is a queue with room for so many items, beside one that is in hand: being sent, and back at the head until that is
// settled.
type buffer struct {
	capacity int
	// depthChanged hears how many wait, with the one in hand.
	depthChanged func(int)

	// more has a value when the reader should look again.
	more chan struct{}

	mu    sync.Mutex
	queue []item
	hand  *item
	ids   map[string]struct{}
	// room is closed when an item was taken, for those who wait; nil if nobody does.
	room   chan struct{}
	closed bool
}

func newBuffer(capacity int, depthChanged func(int)) *buffer {
	return &buffer{capacity: capacity, depthChanged: depthChanged, more: make(chan struct{}, 1), ids: map[string]struct{}{}}
}

// poke lets the reader look again.
func (b *buffer) poke() {
	select {
	case b.more <- struct{}{}:
	default: // it is about to look anyway
	}
}

// add appends an item. Without room it drops the oldest; the one in hand may have arrived already, so it stays. An item whose
// id is waiting already is that one. It returns false once the buffer is closed.
func (b *buffer) add(i item) (dropped, open bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.addLocked(i)
}

func (b *buffer) addLocked(i item) (dropped, open bool) {
	if b.closed {
		return false, false
	}
	if _, waits := b.ids[i.event.ID]; waits {
		return false, true
	}
	if len(b.queue) >= b.capacity {
		dropped = true
		b.pop()
	}
	b.queue = append(b.queue, i)
	b.ids[i.event.ID] = struct{}{}
	b.depthChanged(b.depthLocked())
	b.poke()
	return dropped, true
}

// addWhenRoom appends an item as soon as that drops none.
func (b *buffer) addWhenRoom(ctx context.Context, i item) (open bool, err error) {
	for {
		b.mu.Lock()
		if len(b.queue) < b.capacity || b.closed {
			_, open = b.addLocked(i)
			b.mu.Unlock()
			return open, nil
		}
		if b.room == nil {
			b.room = make(chan struct{})
		}
		room := b.room
		b.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return true, ctx.Err()
		}
	}
}

// pop removes the oldest. The queue is not empty.
func (b *buffer) pop() item {
	first := b.queue[0]
	b.queue[0] = item{}
	b.queue = b.queue[1:]
	delete(b.ids, first.event.ID)
	return first
}

// take returns the item in hand, else takes the oldest in hand, else returns nil.
func (b *buffer) take() *item {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.hand == nil && len(b.queue) > 0 {
		first := b.pop()
		b.hand = &first
		b.ids[first.event.ID] = struct{}{}
		b.tellRoom()
	}
	return b.hand
}

func (b *buffer) tellRoom() {
	if b.room != nil {
		close(b.room)
		b.room = nil
	}
}

// settle says that the item in hand needs no more attention.
func (b *buffer) settle() {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.ids, b.hand.event.ID)
	b.hand = nil
	b.depthChanged(b.depthLocked())
}

// depth is how many wait, with the one in hand.
func (b *buffer) depth() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.depthLocked()
}

func (b *buffer) depthLocked() int {
	if b.hand != nil {
		return len(b.queue) + 1
	}
	return len(b.queue)
}

// close ends it and returns what was left.
func (b *buffer) close() []item {
	b.mu.Lock()
	defer b.mu.Unlock()
	left := b.queue
	if b.hand != nil {
		left = append([]item{*b.hand}, left...)
	}
	b.closed, b.queue, b.hand = true, nil, nil
	b.depthChanged(0)
	b.tellRoom()
	return left
}

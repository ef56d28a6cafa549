package idle

import (
	"net/netip"
	"sync"
)

// slots bounds what peers hold open at once: connections, or streams of events.
//
// When all slots are taken, a newcomer gets the oldest one of the address that holds the most, unless the newcomer's own
// address holds as many. So no address keeps others out, however often it comes back. A slot whose holder has shown the
// gateway's signature is taken away only if all are.
type slots struct {
	max int

	mu   sync.Mutex
	held []*slot // the oldest first
}

// slot is one connection, or one stream.
type slot struct {
	of      *slots
	address netip.Addr
	signed  bool
	end     func()
}

// acquire returns a slot, or nil if there is none for this address. end closes what holds the slot; it must not block.
func (s *slots) acquire(address netip.Addr, signed bool, end func()) *slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.held) >= s.max {
		i := s.victim(address, signed)
		if i < 0 {
			return nil
		}
		s.held[i].end()
		s.held = append(s.held[:i], s.held[i+1:]...)
	}
	taken := &slot{of: s, address: address, signed: signed, end: end}
	s.held = append(s.held, taken)
	return taken
}

// victim returns the index of the slot that a newcomer gets, -1 if there is none.
func (s *slots) victim(address netip.Addr, signed bool) int {
	counts := map[netip.Addr]int{}
	most := 0
	for _, h := range s.held {
		if !h.signed {
			counts[h.address]++
			most = max(most, counts[h.address])
		}
	}
	if most == 0 {
		return 0 // all are signed, and the oldest may be a connection that died unnoticed
	}
	if !signed && counts[address] >= most {
		return -1
	}
	for i, h := range s.held {
		if !h.signed && counts[h.address] == most {
			return i
		}
	}
	return -1
}

// sign notes that the holder has shown the gateway's signature.
func (t *slot) sign() {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	t.signed = true
}

// release gives the slot back. It may be called again, and after the slot was taken away.
func (t *slot) release() {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	for i, h := range t.of.held {
		if h == t {
			t.of.held = append(t.of.held[:i], t.of.held[i+1:]...)
			return
		}
	}
}

func (s *slots) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.held)
}

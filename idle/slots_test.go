package idle

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

func TestSlots(t *testing.T) {
	stranger, other, gateway := netip.MustParseAddr("10.0.0.66"), netip.MustParseAddr("10.0.0.67"), netip.MustParseAddr("10.0.0.1")
	var ended []string
	take := func(s *slots, name string, address netip.Addr, signed bool) *slot {
		return s.acquire(address, signed, func() { ended = append(ended, name) })
	}
	t.Run("one address keeps nobody out", func(t *testing.T) {
		ended = nil
		s := &slots{max: 4}
		for i := range 10 {
			if got := take(s, fmt.Sprint("stranger-", i), stranger, false); (got != nil) != (i < 4) {
				t.Fatalf("stranger's number %d is held: %t", i, got != nil)
			}
		}
		g := take(s, "gateway", gateway, false)
		if g == nil || !slices.Equal(ended, []string{"stranger-0"}) {
			t.Fatalf("the gateway is held: %t, ended %q", g != nil, ended)
		}
		g.sign()
		if take(s, "other", other, false) == nil || !slices.Equal(ended, []string{"stranger-0", "stranger-1"}) {
			t.Errorf("ended %q", ended)
		}
		if s.len() != 4 {
			t.Errorf("%d are held", s.len())
		}
	})
	t.Run("many addresses keep the gateway out of nothing", func(t *testing.T) {
		ended = nil
		s := &slots{max: 4}
		take(s, "gateway", gateway, true)
		for i := range 300 {
			take(s, "stranger", netip.AddrFrom4([4]byte{10, 1, byte(i / 256), byte(i)}), false)
		}
		if slices.Contains(ended, "gateway") {
			t.Error("the gateway was put out")
		}
		ended = nil
		if take(s, "replica", gateway, true) == nil || !slices.Equal(ended, []string{"stranger"}) {
			t.Errorf("a second replica: ended %q", ended)
		}
	})
	t.Run("among signed ones the oldest goes", func(t *testing.T) {
		ended = nil
		s := &slots{max: 2}
		for _, name := range []string{"a", "b", "c"} {
			take(s, name, gateway, true)
		}
		if !slices.Equal(ended, []string{"a"}) {
			t.Errorf("ended %q", ended)
		}
	})
	t.Run("what is given back is free", func(t *testing.T) {
		ended = nil
		s := &slots{max: 1}
		first := take(s, "first", stranger, false)
		first.release()
		first.release()
		if take(s, "second", stranger, false) == nil || ended != nil || s.len() != 1 {
			t.Errorf("ended %q, %d are held", ended, s.len())
		}
	})
}

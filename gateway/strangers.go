package gateway

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
)

const (
	// maxStrangers is how many connections may stand on which nobody has shown a good token yet. One costs up to some 45 KiB: two
	// buffers, a stack, and the headers that it may send.
	maxStrangers = 2048

	// maxStrangersFromSource is how many of them may come from one address.
	maxStrangersFromSource = 256
)

// strangers bounds the connections of those who have not said who they are, which cost memory before anything is known of them. Where
// there are too many the oldest is closed: one that is meant seriously sends its request at once and is a stranger for the time of one
// TokenReview. Those from one address only take each other's place.
type strangers struct {
	most, mostFromSource int
	closed               func() // hears of each that is closed

	mu    sync.Mutex
	known map[net.Conn]*stranger
	all   *list.List // of *stranger, the oldest first
	from  map[netip.Prefix]*list.List
}

// stranger is one connection, and its places in the two lists.
type stranger struct {
	conn             net.Conn
	network          netip.Prefix
	inAll, inNetwork *list.Element
}

func newStrangers(most, mostFromSource int, closed func()) *strangers {
	return &strangers{
		most: most, mostFromSource: mostFromSource, closed: closed,
		known: map[net.Conn]*stranger{}, all: list.New(), from: map[netip.Prefix]*list.List{},
	}
}

// watch is the hook of an http.Server for connections that come and go.
func (s *strangers) watch(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.add(conn)
	case http.StateHijacked, http.StateClosed:
		s.remove(conn)
	case http.StateActive, http.StateIdle:
	}
}

func (s *strangers) add(conn net.Conn) {
	network := networkOf(addressOf(conn.RemoteAddr().String()))
	s.mu.Lock()
	if s.from[network] == nil {
		s.from[network] = list.New()
	}
	added := &stranger{conn: conn, network: network}
	added.inAll, added.inNetwork = s.all.PushBack(added), s.from[network].PushBack(added)
	s.known[conn] = added
	var oldest *stranger
	switch {
	case s.from[network].Len() > s.mostFromSource:
		oldest = s.from[network].Front().Value.(*stranger)
	case s.all.Len() > s.most:
		oldest = s.all.Front().Value.(*stranger)
	}
	if oldest != nil {
		s.drop(oldest)
	}
	s.mu.Unlock()
	if oldest != nil {
		_ = closeNow(oldest.conn)
		s.closed()
	}
}

// remove forgets a connection: it has ended, or its caller is no stranger any more.
func (s *strangers) remove(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.known[conn]; known != nil {
		s.drop(known)
	}
}

// drop takes one out of the lists. The caller holds mu.
func (s *strangers) drop(known *stranger) {
	s.all.Remove(known.inAll)
	s.from[known.network].Remove(known.inNetwork)
	if s.from[known.network].Len() == 0 {
		delete(s.from, known.network)
	}
	delete(s.known, known.conn)
}

// closeNow closes without the farewell of TLS, which waits for a peer that does not read.
func closeNow(conn net.Conn) error {
	if wrapped, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = wrapped.NetConn()
	}
	return conn.Close()
}

// connKey is a request's connection in its context.
type connKey struct{}

// remember is the hook of an http.Server that gives a request's context its connection.
func (*strangers) remember(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// trust says that the caller of a request is no stranger: its connection stands as long as it likes.
func (s *strangers) trust(ctx context.Context) {
	if conn, ok := ctx.Value(connKey{}).(net.Conn); ok {
		s.remove(conn)
	}
}

// addressOf returns the address of a host:port, the zero Addr where there is none.
func addressOf(hostPort string) netip.Addr {
	parsed, err := netip.ParseAddrPort(hostPort)
	if err != nil {
		return netip.Addr{}
	}
	return parsed.Addr()
}

package installation

import (
	"io"
	"net"
	"sync"
)

// balancer is one address before several servers, as a Service would be: connections go round robin to those that are
// in, and those that were made before a server was taken out live on.
type balancer struct {
	listener net.Listener

	mu      sync.Mutex
	servers []*Server
	next    int
}

func newBalancer() (*balancer, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &balancer{listener: listener}
	go b.serve()
	return b, nil
}

// address is host and port, by the name that the servers' certificate carries.
func (b *balancer) address() string {
	_, port, _ := net.SplitHostPort(b.listener.Addr().String())
	return net.JoinHostPort("localhost", port)
}

func (b *balancer) close() { b.listener.Close() }

func (b *balancer) add(s *Server) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.servers = append(b.servers, s)
}

func (b *balancer) remove(s *Server) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.servers {
		if b.servers[i] == s {
			b.servers = append(b.servers[:i:i], b.servers[i+1:]...)
			return
		}
	}
}

func (b *balancer) pick() *Server {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.servers) == 0 {
		return nil
	}
	b.next++
	return b.servers[b.next%len(b.servers)]
}

func (b *balancer) serve() {
	for {
		client, err := b.listener.Accept()
		if err != nil {
			return // It was closed.
		}
		s := b.pick()
		if s == nil {
			client.Close()
			continue
		}
		go forward(client, s.Listen)
	}
}

// forward joins two connections until either side is done.
func forward(client net.Conn, address string) {
	defer client.Close()
	backend, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer backend.Close()
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{client, backend}, {backend, client}} {
		go func() {
			_, _ = io.Copy(pair[0], pair[1])
			done <- struct{}{}
		}()
	}
	<-done
}

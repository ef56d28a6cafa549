package natsserver

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// startTimeout bounds the start. It takes some 20 ms, far more while other packages' tests compile.
const startTimeout = 30 * time.Second

// Options of a server.
type Options struct {
	// Dir is where JetStream keeps its streams. Required.
	Dir string

	// Port on loopback; 0 is a free one.
	Port int

	// Configure changes what else the server does, such as TLS and users. May be nil.
	Configure func(*server.Options)
}

// Server is a running server. Stop must be called.
type Server struct {
	server *server.Server
	port   int
}

// Start runs a server and returns when it serves.
func Start(options Options) (*Server, error) {
	if options.Dir == "" {
		return nil, errors.New("natsserver: option Dir: required")
	}
	so := &server.Options{
		Host: "127.0.0.1", Port: options.Port, ServerName: "natsserver", JetStream: true, StoreDir: options.Dir,
		NoLog: true, NoSigs: true, DisableJetStreamBanner: true,
	}
	if so.Port == 0 {
		so.Port = server.RANDOM_PORT
	}
	if options.Configure != nil {
		options.Configure(so)
	}
	s, err := server.NewServer(so)
	if err != nil {
		return nil, fmt.Errorf("natsserver: %w", err)
	}
	s.Start()
	if !s.ReadyForConnections(startTimeout) {
		stop(s)
		return nil, fmt.Errorf("natsserver: does not serve within %s; is port %d taken?", startTimeout, options.Port)
	}
	address, ok := s.Addr().(*net.TCPAddr)
	if !ok {
		stop(s)
		return nil, fmt.Errorf("natsserver: listens on %s", s.Addr())
	}
	return &Server{server: s, port: address.Port}, nil
}

// URL is how it is reached.
func (s *Server) URL() string { return fmt.Sprintf("nats://127.0.0.1:%d", s.port) }

// Port is where it listens.
func (s *Server) Port() int { return s.port }

// Stop ends it, and returns when its port and directory are free. Stopping twice does nothing.
func (s *Server) Stop() { stop(s.server) }

func stop(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// TB is what StartForTest needs of *testing.T or *testing.B, so that the demo does not link package testing.
type TB interface {
	Helper()
	Cleanup(func())
	TempDir() string
	Fatalf(format string, args ...any)
}

// StartForTest is Start for the length of a test. Without Dir the server gets a temporary one.
func StartForTest(t TB, options Options) *Server {
	t.Helper()
	if options.Dir == "" {
		options.Dir = t.TempDir()
	}
	s, err := Start(options)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(s.Stop)
	return s
}

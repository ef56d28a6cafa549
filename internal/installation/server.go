package installation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Server is one process of the server program.
type Server struct {
	// Listen and Health are the addresses of the process, Log the file of what it writes.
	Listen string
	Health string
	Log    string

	process *exec.Cmd
	exited  chan struct{}
	err     error
}

func startServer(program, log string, args []string) (*Server, error) {
	s := &Server{Log: log, exited: make(chan struct{})}
	var err error
	if s.Listen, err = freeAddress(); err != nil {
		return nil, err
	}
	if s.Health, err = freeAddress(); err != nil {
		return nil, err
	}
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	args = append([]string{"serve", "--listen", s.Listen, "--health-listen", s.Health}, args...)
	s.process = exec.Command(program, args...)
	s.process.Stdout, s.process.Stderr = file, file
	// Ctrl-C is for the demo, which stops its servers itself.
	s.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := s.process.Start(); err != nil {
		return nil, err
	}
	go func() {
		s.err = s.process.Wait()
		close(s.exited)
	}()
	return s, nil
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

// awaitReady waits until the server says that it can answer.
func (s *Server) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	last := "no answer yet"
	for {
		ok, answer := s.ready(ctx)
		if ok {
			return nil
		}
		if answer != "" {
			last = answer
		}
		select {
		case <-s.exited:
			return fmt.Errorf("server exited: %w", s.err)
		case <-ctx.Done():
			return fmt.Errorf("server is not ready: %s", last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *Server) ready(ctx context.Context) (bool, string) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Health+"/readyz?verbose", nil)
	if err != nil {
		return false, err.Error()
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false, ""
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
	return response.StatusCode == http.StatusOK, strings.TrimSpace(string(body))
}

// PID is the id of the process.
func (s *Server) PID() int { return s.process.Process.Pid }

// Stop asks the server to finish and waits for it.
func (s *Server) Stop() error {
	select {
	case <-s.exited:
		return s.err
	default:
	}
	if err := s.process.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.exited:
		return s.err
	case <-time.After(30 * time.Second):
		_ = s.process.Process.Kill()
		return errors.New("server did not stop within 30 s of SIGTERM and was killed")
	}
}

func (s *Server) kill() {
	_ = s.process.Process.Kill()
	<-s.exited
}

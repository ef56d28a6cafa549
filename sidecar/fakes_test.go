package sidecar

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// pod is a directory that looks like the /proc of a Pod with a shared process namespace. The processes in it are real ones:
// children of the test, shown as what a container's main process looks like.
type pod struct {
	t    *testing.T
	proc string
	hint string
}

func newPod(t *testing.T) *pod {
	t.Helper()
	p := &pod{t: t, proc: t.TempDir(), hint: filepath.Join(t.TempDir(), "exit_code")}
	p.show("self", os.Getpid(), "0::/\n", 0)
	p.show("1", os.Getpid(), "0::/../pause\n", 0)
	p.show(fmt.Sprint(os.Getpid()), os.Getpid(), "0::/\n", 0)
	return p
}

// show writes what /proc says of a process, with another parent and cgroup.
func (p *pod) show(name string, pid int, cgroup string, parent int) {
	p.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		p.t.Fatal(err)
	}
	i := strings.LastIndexByte(string(data), ')')
	fields := strings.Fields(string(data[i+1:]))
	fields[1] = fmt.Sprint(parent)
	dir := filepath.Join(p.proc, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		p.t.Fatal(err)
	}
	for file, content := range map[string]string{
		"stat": string(data[:i+1]) + " " + strings.Join(fields, " "), "cgroup": cgroup, "comm": "sidecar\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
			p.t.Fatal(err)
		}
	}
}

// agent is the main process of a container.
type agent struct {
	*exec.Cmd
	end io.Closer
}

// start starts a main process that runs a script once stop is called.
func (p *pod) start(script string) *agent {
	p.t.Helper()
	cmd := exec.Command("sh", "-c", "read line; "+script)
	end, err := cmd.StdinPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.show(fmt.Sprint(cmd.Process.Pid), cmd.Process.Pid, "0::/../agent\n", 0)
	a := &agent{cmd, end}
	p.t.Cleanup(func() { _ = a.Process.Kill() })
	return a
}

// stop lets the script run, reaps the process as a container runtime would, and takes it out of the table.
func (p *pod) stop(a *agent) {
	p.t.Helper()
	a.end.Close()
	_ = a.Wait()
	if err := os.RemoveAll(filepath.Join(p.proc, fmt.Sprint(a.Process.Pid))); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pod) leave(word string) {
	p.t.Helper()
	if err := os.WriteFile(p.hint, []byte(word), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// apiServer answers as the API server would: with the codes in order, and the last of them again and again.
type apiServer struct {
	*httptest.Server
	tokenFile string

	mu    sync.Mutex
	codes []int
	asked []string // what was asked: method, path, token, body

	// gate holds requests until it is closed, held has one that waits; both are nil where none is to.
	gate, held chan struct{}
}

// judgedForbidden stands for the webhook's 403, as opposed to the API server's own.
const judgedForbidden = -http.StatusForbidden

// hold keeps requests waiting until release is called. To be called before there are any.
func (a *apiServer) hold(t *testing.T) (release func()) {
	t.Helper()
	a.gate, a.held = make(chan struct{}), make(chan struct{}, 8)
	release = sync.OnceFunc(func() { close(a.gate) })
	t.Cleanup(release)
	return release
}

// away stops the server, as if its machine were down; back starts it again at its address.
func (a *apiServer) away(t *testing.T) (back func()) {
	t.Helper()
	address, handler := a.Listener.Addr().String(), a.Config.Handler
	a.Close()
	return func() {
		t.Helper()
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		again := httptest.NewUnstartedServer(handler)
		again.Listener.Close()
		again.Listener = listener
		again.StartTLS()
		t.Cleanup(again.Close)
	}
}

func newAPIServer(t *testing.T, codes ...int) *apiServer {
	t.Helper()
	a := &apiServer{codes: codes, tokenFile: filepath.Join(t.TempDir(), "token")}
	a.setToken(t, "first")
	a.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if a.gate != nil {
			a.held <- struct{}{}
			<-a.gate
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		a.asked = append(a.asked, strings.Join([]string{r.Method, r.URL.Path, r.Header.Get("Authorization"), string(body)}, " "))
		code := a.codes[0]
		if len(a.codes) > 1 {
			a.codes = a.codes[1:]
		}
		judged := ""
		if code == judgedForbidden {
			code, judged = http.StatusForbidden, `,"details":{"causes":[{"reason":"LifecyclePolicy","message":"self-delete"}]}`
		}
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"kind":"Status","message":"answer %d"%s}`, code, judged)
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *apiServer) setToken(t *testing.T, token string) {
	t.Helper()
	if err := os.WriteFile(a.tokenFile, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (a *apiServer) requests() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string{}, a.asked...)
}

func (a *apiServer) server() Server {
	return Server{
		URL: a.URL, TokenFile: a.tokenFile,
		CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw}),
	}
}

// running is a sidecar that runs.
type running struct {
	t    *testing.T
	stop context.CancelFunc
	done chan error
	log  *lockedBuffer
}

// runIn runs a sidecar in a pod. Whether the kernel is asked or the file is what info says.
func runIn(t *testing.T, p *pod, a *apiServer, info bool, change func(*Options)) *running {
	t.Helper()
	if info && !kernelTells() {
		t.Skip("this kernel does not tell how a process ended")
	}
	r := &running{t: t, done: make(chan error, 1), log: &lockedBuffer{}}
	options := Options{
		Namespace: "agents", Deployment: "alice", Server: a.server(), ProcDir: p.proc, ExitCodeFile: p.hint,
		Logger: slog.New(slog.NewJSONHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&options)
	}
	if err := options.complete(); err != nil {
		t.Fatal(err)
	}
	table, err := newProcessTable(p.proc)
	if err != nil {
		t.Fatal(err)
	}
	s := newSidecar(options, table, info)
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	t.Cleanup(cancel)
	go func() { r.done <- s.run(ctx) }()
	return r
}

// expectLog waits until the sidecar has said something.
func (r *running) expectLog(want string) {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if strings.Contains(r.log.String(), want) {
			return
		}
	}
	r.t.Fatalf("the sidecar has not said %q:\n%s", want, r.log.String())
}

// expectEnd waits for the sidecar's end.
func (r *running) expectEnd() error {
	r.t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(20 * time.Second):
		r.t.Fatalf("the sidecar has not ended:\n%s", r.log.String())
		return nil
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

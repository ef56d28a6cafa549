package idle

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// onSocket serves a manager's whole API on a real socket.
func onSocket(t *testing.T, m *Manager) (*Client, string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s.sock")
	listener, err := net.Listen("unix", socket)
	must(t, err)
	server := &http.Server{Handler: Handler(m)}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })
	return NewClient(socket), socket
}

func TestClient(t *testing.T) {
	m := New(testConfig())
	c, _ := onSocket(t, m)
	ctx := t.Context()
	must(t, c.RecordActivity(ctx, "shell"))
	must(t, c.AddTrigger(ctx, "cron:1", "every hour"))
	until, err := c.Lease(ctx, "job", time.Minute)
	must(t, err)
	if left := time.Until(until); left < 50*time.Second || left > 61*time.Second {
		t.Errorf("the lease holds for %s", left)
	}
	s, err := c.Status(ctx)
	must(t, err)
	if s.LastActivity.Source != "shell" || s.Deadline != nil || len(s.KeptAliveBy) != 3 {
		t.Errorf("status %+v", s)
	}
	must(t, c.UpdateTriggers(ctx, "a"))
	if got := m.Triggers(); !equal(got, []string{"a", "job"}) {
		t.Errorf("triggers %q", got)
	}
	must(t, c.RemoveTrigger(ctx, "a"))
	must(t, c.RemoveTrigger(ctx, "job"))
	must(t, c.RemoveTrigger(ctx, "never there"[:5]))
	_, granted, err := c.Snooze(ctx, 15*time.Minute)
	must(t, err)
	if granted < 14*time.Minute || granted > 15*time.Minute {
		t.Errorf("granted %s", granted)
	}
	m.Stop()
	if err := c.RecordActivity(ctx, "late"); err == nil || !strings.Contains(err.Error(), "being stopped") {
		t.Errorf("after the stop: %v", err)
	}
	if _, err := NewClient("/nonexistent").Status(ctx); err == nil || !strings.Contains(err.Error(), "reach the lifecycle manager") {
		t.Errorf("without a manager: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	m := New(testConfig())
	for _, tc := range []struct {
		method, path, body string
		code               int
		message            string
	}{
		{"PUT", "/v1/triggers/" + strings.Repeat("x", 254), "", 400, "1 to 253 printable ASCII"},
		{"PUT", "/v1/triggers/a%20b", "", 400, "printable"},
		{"PUT", "/v1/triggers", `{"trigger": ["a"]}`, 400, `unknown field \"trigger\"`},
		{"PUT", "/v1/triggers", ``, 400, "EOF"},
		{"PUT", "/v1/triggers", `{"triggers": []} x`, 400, "after the JSON value"},
		{"POST", "/v1/leases", `{"id": "a", "ttlSeconds": 0.5}`, 400, "1s to 24h0m0s"},
		{"POST", "/v1/leases", `{"id": "a", "ttlSeconds": 1e300}`, 400, "1s to 24h0m0s"},
		{"POST", "/v1/snooze", `{"seconds": -1}`, 400, "a positive number"},
		{"POST", "/v1/snooze", `{"seconds": 1}`, 422, "cannot be put off"},
		{"POST", "/v1/activity", `{"source": "` + strings.Repeat("x", 70000) + `"}`, 413, "too large"},
		{"GET", "/v1/activity", "", 405, ""},
		{"GET", "/v2/status", "", 404, ""},
	} {
		w := httptest.NewRecorder()
		Handler(m).ServeHTTP(w, httptest.NewRequest(tc.method, tc.path, strings.NewReader(tc.body)))
		if w.Code != tc.code || !strings.Contains(w.Body.String(), tc.message) {
			t.Errorf("%s %.40s %.40s: %d %s; want %d with %q", tc.method, tc.path, tc.body, w.Code, w.Body, tc.code, tc.message)
		}
	}
	for i := range maxKeeps {
		must(t, m.AddTrigger(fmt.Sprint(i), ""))
	}
	if err := m.AddTrigger("one more", ""); err == nil {
		t.Error("an id with a space was accepted")
	}
	if _, err := m.Lease("more", time.Minute); err != ErrTooMany { //nolint:errorlint // It is returned as it is.
		t.Errorf("got %v, want ErrTooMany", err)
	}
}

// The network gets no way to keep an agent for ever.
func TestPublicHandler(t *testing.T) {
	m := New(testConfig())
	for path, code := range map[string]int{
		"PUT /v1/triggers/a": 404, "PUT /v1/triggers": 404, "POST /v1/leases": 404, "DELETE /v1/triggers": 404,
		"GET /v1/status": 200, "POST /v1/activity": 204, "GET /metrics": 200,
	} {
		method, target, _ := strings.Cut(path, " ")
		w := httptest.NewRecorder()
		PublicHandler(m).ServeHTTP(w, httptest.NewRequest(method, target, http.NoBody))
		if w.Code != code {
			t.Errorf("%s: %d, want %d", path, w.Code, code)
		}
	}
}

func TestEventStream(t *testing.T) {
	m := New(testConfig())
	_, socket := onSocket(t, m)
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	response, err := client.Get("http://x/v1/events")
	must(t, err)
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	expect := func(want string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), want) {
				return
			}
		}
		t.Fatalf("the stream ended before %q", want)
	}
	expect(`"state":"RUNNING"`)
	m.Stop()
	expect(`"state":"SHUTDOWN"`)
}

// TestDescription holds the handler and its description together.
func TestDescription(t *testing.T) {
	data, err := os.ReadFile("../docs/lifecycle-manager.openapi.yaml")
	must(t, err)
	var described []string
	path := ""
	for line := range strings.Lines(string(data)) {
		if m := regexp.MustCompile(`^ {2}(/\S+):`).FindStringSubmatch(line); m != nil {
			path = m[1]
		}
		if m := regexp.MustCompile(`^ {4}(get|put|post|delete):`).FindStringSubmatch(line); m != nil {
			described = append(described, strings.ToUpper(m[1])+" "+path)
		}
	}
	source, err := os.ReadFile("handler.go")
	must(t, err)
	var served []string
	for _, m := range regexp.MustCompile(`"((?:GET|PUT|POST|DELETE) /\S+)"`).FindAllStringSubmatch(string(source), -1) {
		served = append(served, m[1])
	}
	slices.Sort(described)
	slices.Sort(served)
	if !equal(described, served) {
		t.Errorf("described %q\nserved    %q", described, served)
	}
}

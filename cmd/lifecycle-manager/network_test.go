package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	signing "github.com/dexorder/agent-lifecycle/activity"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// post sends activity as a client outside of the Pod does: a request with an origin is from no process of the agent.
func post(t *testing.T, address string, sign func(*http.Request, []byte)) *http.Response {
	t.Helper()
	body := []byte(`{"source":"gateway"}`)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+"/v1/activity", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Origin", "http://elsewhere")
	if sign != nil {
		sign(request, body)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	return response
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// TestNetwork: a manager with the gateway's key takes activity from the gateway alone, and one without from everybody.
func TestNetwork(t *testing.T) {
	t.Parallel()
	private := ed25519.NewKeyFromSeed(slices.Repeat([]byte{1}, ed25519.SeedSize))
	key := lifecycle.EnvActivityKey + "=" + signing.FormatPublicKey(private.Public().(ed25519.PublicKey))
	audience := lifecycle.EnvActivityAudience + "=pod-1"
	for name, tc := range map[string]struct {
		env      []string
		unsigned int
		log      string
	}{
		"with the key":              {[]string{key, audience}, 401, ""},
		"without a key":             {nil, 204, ""},
		"with a key that is broken": {[]string{lifecycle.EnvActivityKey + "=broken", audience}, 204, "unsigned activity from the network is taken"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := freeAddress(t)
			a := start(t, tc.env, []string{"--listen", address}, "sleep", "60")
			a.served()
			response := post(t, address, nil)
			answer, err := io.ReadAll(response.Body)
			if err != nil || response.StatusCode != tc.unsigned {
				t.Fatalf("unsigned: %s %s %v, want %d", response.Status, answer, err, tc.unsigned)
			}
			if tc.unsigned == 401 {
				if !strings.Contains(string(answer), "accepted is a signature of the gateway in the header Agent-Signature") {
					t.Errorf("the refusal does not say what is accepted: %s", answer)
				}
				signer := signing.NewSigner("replica")
				signer.SetKeys([]ed25519.PrivateKey{private})
				response := post(t, address, func(r *http.Request, body []byte) {
					signer.Sign(r.Header, &signing.Request{
						Method: r.Method, Path: "/v1/activity", Body: body, Audience: "pod-1", Nonce: response.Header.Get(signing.NonceHeader),
					})
				})
				response.Body.Close()
				if response.StatusCode != http.StatusNoContent {
					t.Errorf("signed: %s", response.Status)
				}
			}
			if _, status := a.says("status"); !strings.Contains(status, "last activity: gateway") {
				t.Errorf("the activity is not in the status:\n%s", status)
			}
			if code, out := a.says("activity", "--source", "own"); code != 0 {
				t.Errorf("the agent's own activity: %d %s", code, out)
			}
			if err := a.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			a.expectEnd(0)
			if log := a.log.String(); tc.log != "" && !strings.Contains(log, tc.log) {
				t.Errorf("the log lacks %q:\n%s", tc.log, log)
			}
		})
	}
}

// TestTerminal: what an agent says of itself draws nothing on an operator's terminal.
func TestTerminal(t *testing.T) {
	t.Parallel()
	const reason = "\x1b]0;pwned\a\x1b[2J\nroot@cluster: all is well \u009b31m"
	const shown = `\x1b]0;pwned\a\x1b[2J\nroot@cluster: all is well \u009b31m`
	a := start(t, nil, nil, "sleep", "60")
	a.served()
	if code, out := a.says("trigger", "add", "t1", "--reason", reason); code != 0 {
		t.Fatal(out)
	}
	if _, out := a.says("status"); !strings.Contains(out, "("+shown+")") {
		t.Errorf("status shows %q", out)
	}
	_, out := a.says("status", "-o", "json")
	if strings.ContainsAny(out, "\x1b\a\u009b") {
		t.Errorf("status -o json shows %q", out)
	}
	var status struct{ KeptAliveBy []struct{ Reason string } }
	if err := json.Unmarshal([]byte(out), &status); err != nil || status.KeptAliveBy[0].Reason != reason {
		t.Errorf("status -o json is %v, %v", status, err)
	}

	// An agent may put any program at the socket's other end.
	runDir := t.TempDir()
	listener, err := net.Listen("unix", filepath.Join(runDir, "lifecycle.sock"))
	if err != nil {
		t.Fatal(err)
	}
	const evil = "\x1b[2J\u009b"
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/status":
			_, _ = io.WriteString(w, `{"state": "\u001b[2J\u009b", "lastActivity": {"source": "\u001b[2J\u009b"}, "keptAliveBy": [{"kind": "\u001b[2J\u009b", "id": "\u001b[2J\u009b"}]}`)
		case "/v1/events":
			_, _ = io.WriteString(w, "event: "+evil+"\n")
		default:
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"error": "\u001b[2J\u009b"}`)
		}
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })
	for _, verb := range [][]string{{"status"}, {"status", "-o", "json"}, {"events"}, {"activity"}} {
		_, out := says(t, runDir, verb...)
		if strings.ContainsAny(out, "\x1b\u009b") || !strings.Contains(out, `[2J\u009b`) {
			t.Errorf("%v shows %q", verb, out)
		}
	}
}

package webhook

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"

	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// noMetrics gathers nothing.
type noMetrics struct{}

func (noMetrics) Gather() ([]*dto.MetricFamily, error) { return nil, nil }

func TestServer(t *testing.T) {
	a, _ := newTestAdmission(&fakePolicy{})
	s := startServer(t, a, 0)
	client := newClient(nil, true)
	admission, health := "https://"+s.admission.Addr().String(), "http://"+s.health.Addr().String()
	for _, path := range []string{"/mutate", "/validate"} {
		if ok, err := askOnce(client, admission+path+"?timeout=5s", reviewOf(t, newRequest(t))); !ok || err != nil {
			t.Errorf("%s: %v, %v", path, ok, err)
		}
	}
	if ok, err := askOnce(client, admission+"/stamp?timeout=2s", reviewOf(t, newStampRequest(t))); !ok || err != nil {
		t.Errorf("/stamp: %v, %v", ok, err)
	}
	for _, path := range []string{"/policy", "/policy/2"} { // registrations of v0.1.0 and of today
		if ok, err := askOnce(client, admission+path+"?timeout=5s", reviewOf(t, newPolicyRequest(t, policyFileOf(string(v1alpha1.Example()))))); !ok || err != nil {
			t.Errorf("%s: %v, %v", path, ok, err)
		}
	}
	// Each listener has its own paths and no others.
	for url, want := range map[string]int{
		health + "/healthz": 200, health + "/readyz": 200, health + "/metrics": 200,
		health + "/mutate": 404, health + "/policy": 404, health + "/stamp": 404, health + "/validate": 404, health + "/": 404,
		admission + "/healthz": 404, admission + "/readyz": 404, admission + "/metrics": 404, admission + "/": 404,
		admission + "/validate/x": 404, admission + "/mutate": 405, admission + "/policy": 405, admission + "/policy/2": 405, admission + "/policy/3": 404,
		admission + "/stamp": 405,
	} {
		response, err := client.Get(url)
		if strings.HasPrefix(url, health) {
			response, err = http.Get(url)
		}
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s: %d, want %d", url, response.StatusCode, want)
		}
	}
	old := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}
	if conn, err := tls.Dial("tcp", s.admission.Addr().String(), old); err == nil {
		conn.Close()
		t.Error("TLS 1.2 was accepted")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	if _, err := NewServer(Options{}); err == nil {
		t.Error("a server with nothing to answer with")
	}
}

func TestReadyz(t *testing.T) {
	good := Check{Name: "good", Run: func() error { return nil }}
	bad := Check{Name: "bad", Run: func() error { return errors.New("first\nsecond") }}
	notice := Check{Name: "notice", Run: func() error { return errors.New("look here") }, Notice: true}
	tests := []struct {
		name, query string
		checks      []Check
		code        int
		body        string
	}{
		{"all well", "", []Check{good}, 200, "readyz check passed\n"},
		{"all well, verbose", "?verbose", []Check{good}, 200, "[+]good ok\nreadyz check passed\n"},
		{"notice", "", []Check{good, notice}, 200, "readyz check passed\n"},
		{"notice, verbose", "?verbose", []Check{good, notice}, 200, "[+]good ok\n[!]notice: look here\nreadyz check passed\n"},
		{"bad", "", []Check{good, notice, bad}, 503, "[-]bad: first; second\nreadyz check failed\n"},
		{"bad, verbose", "?verbose", []Check{good, bad}, 503, "[+]good ok\n[-]bad: first; second\nreadyz check failed\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			readyz(tt.checks)(w, httptest.NewRequest(http.MethodGet, "/readyz"+tt.query, nil))
			body, _ := io.ReadAll(w.Body)
			if w.Code != tt.code || string(body) != tt.body {
				t.Errorf("%d %q, want %d %q", w.Code, body, tt.code, tt.body)
			}
		})
	}
}

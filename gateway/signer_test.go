package gateway

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/activity"
	"github.com/dexorder/agent-lifecycle/idle"
)

// farListener makes connections look as if they came from another Pod: what comes from the agent's own needs no signature.
type farListener struct{ net.Listener }

func (l farListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return farConn{c}, nil
}

type farConn struct{ net.Conn }

func (farConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1} }

// startManager serves the lifecycle manager of an agent that has the public half of key, or none.
func startManager(t *testing.T, key ed25519.PrivateKey, uid types.UID) (m *idle.Manager, address string) {
	t.Helper()
	m = idle.New(idle.DefaultConfig())
	var verifier *activity.Verifier
	if key != nil {
		n := 0
		verifier = activity.NewVerifier(key.Public().(ed25519.PublicKey), string(uid), func() string { n++; return fmt.Sprint(uid, "-", n) })
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() { _ = idle.ServeNetwork(farListener{listener}, m, verifier, slog.New(slog.DiscardHandler)) }()
	return m, listener.Addr().String()
}

// newReplica returns a gateway that can do no more than speak to managers, at the addresses that Pods have for names.
func newReplica(instance string, keys ...ed25519.PrivateKey) *Gateway {
	signer := activity.NewSigner(instance)
	signer.SetKeys(keys)
	return &Gateway{nonces: newNonces(), options: Options{
		Signer: signer, Address: func(pod *corev1.Pod, _ int32) string { return pod.Name },
		Metrics: NewMetrics(prometheus.NewRegistry()),
	}}
}

func podAt(address string, uid types.UID) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: address, UID: uid}}
}

func seeded(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(slices.Repeat([]byte{seed}, ed25519.SeedSize))
}

// TestSignedActivity: managers with the key take it from each replica of the gateway, during a rotation of the key too, and
// those without as before.
func TestSignedActivity(t *testing.T) {
	first, second := seeded(1), seeded(2)
	for name, tc := range map[string]struct {
		agent ed25519.PrivateKey
		keys  []ed25519.PrivateKey
		code  int
	}{
		"with the key":              {first, []ed25519.PrivateKey{first}, http.StatusNoContent},
		"with the key before":       {first, []ed25519.PrivateKey{second, first}, http.StatusNoContent},
		"without a key":             {nil, []ed25519.PrivateKey{first}, http.StatusNoContent},
		"with another key":          {first, []ed25519.PrivateKey{second}, http.StatusUnauthorized},
		"a gateway without its key": {first, nil, http.StatusUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			m, address := startManager(t, tc.agent, "uid-1")
			pod := podAt(address, "uid-1")
			for i, g := range []*Gateway{newReplica("one", tc.keys...), newReplica("two", tc.keys...)} {
				for range 3 {
					source := fmt.Sprint("gateway-", i)
					response, err := g.post(t.Context(), pod, "/v1/activity", []byte(`{"source":"`+source+`"}`))
					if err != nil {
						t.Fatal(err)
					}
					response.Body.Close()
					if response.StatusCode != tc.code {
						t.Fatalf("replica %d: %s, want %d", i, response.Status, tc.code)
					}
					if got := m.Status().LastActivity.Source; (got == source) != (tc.code == http.StatusNoContent) {
						t.Errorf("the last activity is %q", got)
					}
				}
			}
		})
	}
}

// TestRecreatedManager: the gateway learns the nonce of a manager that was started again.
func TestRecreatedManager(t *testing.T) {
	g := newReplica("one", seeded(1))
	for _, nonce := range []types.UID{"uid-1", "uid-1"} {
		_, address := startManager(t, seeded(1), nonce)
		g.nonces.learn("uid-1", "of an earlier life")
		response, err := g.post(t.Context(), podAt(address, "uid-1"), "/v1/snooze", []byte(`{"seconds": 1000}`))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("snooze: %s", response.Status)
		}
	}
}

// TestSignedStream: the stream of events is signed, so that strangers' do not keep the gateway from it.
func TestSignedStream(t *testing.T) {
	_, address := startManager(t, seeded(1), "uid-1")
	for range 16 {
		response, err := http.Get("http://" + address + "/v1/events")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { response.Body.Close() })
	}
	for _, replica := range []string{"one", "two", "three"} {
		g := newReplica(replica, seeded(1))
		w := newWatcher(g)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		t.Cleanup(cancel)
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/v1/events", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := g.send(w.client, request, podAt(address, "uid-1"), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { response.Body.Close() })
		if response.StatusCode != http.StatusOK {
			t.Errorf("replica %s: %s", replica, response.Status)
		}
	}
}

// TestWatcherSigns: the watcher's own request is the signed one.
func TestWatcherSigns(t *testing.T) {
	signatures := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		signatures += len(r.Header.Values(activity.Header))
		http.NotFound(w, r)
	}))
	defer server.Close()
	w := newWatcher(newReplica("one", seeded(1), seeded(2)))
	s := &stream{watcher: w, pod: podAt(server.Listener.Addr().String(), "uid"), budget: newBudget(time.Now)}
	if _, err := s.read(t.Context(), false); err == nil {
		t.Error("there are no events, and no error")
	}
	if signatures != 2 {
		t.Errorf("%d signatures, want one by each of two keys", signatures)
	}
}

// TestStreamsAreSignedAnew: an agent takes a standing stream for the proof that its gateway signs by the agent's key. When the
// key is used no more, the stream must not stand on.
func TestStreamsAreSignedAnew(t *testing.T) {
	signed := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		signed <- strings.Fields(r.Header.Get(activity.Header))[1] // the key's id
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	defer server.Close()
	g := newReplica("one", seeded(1))
	g.watcher = newWatcher(g)
	ended := make(chan error)
	pod := podAt(server.Listener.Addr().String(), "uid")
	listen := func() {
		s := &stream{watcher: g.watcher, pod: pod, budget: newBudget(time.Now)}
		_, err := s.read(t.Context(), false)
		ended <- err
	}
	go listen()
	first := <-signed
	if g.options.Signer.SetKeys([]ed25519.PrivateKey{seeded(1)}) {
		t.Error("the same key counts as another")
	}
	if !g.options.Signer.SetKeys([]ed25519.PrivateKey{seeded(2)}) {
		t.Error("another key does not count as one")
	}
	g.SignStreamsAnew()
	if err := <-ended; err == nil {
		t.Error("the stream ended without an error")
	}
	go listen()
	if second := <-signed; second == first {
		t.Error("the stream is signed by the key of before")
	}
	g.SignStreamsAnew()
	if err := <-ended; err == nil {
		t.Error("the second stream ended without an error")
	}
}

// TestNonces: an agent that answers what it likes makes the gateway ask once more, and remember little.
func TestNonces(t *testing.T) {
	asked := 0
	answers := []string{"short", strings.Repeat("x", maxNonce+1), "with space", "with-\u00fc", ""}
	for _, nonce := range answers {
		before := asked
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked++
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				t.Error(err)
			}
			w.Header().Set(activity.NonceHeader, nonce)
			w.WriteHeader(http.StatusUnauthorized)
		}))
		g := newReplica("one", seeded(1))
		response, err := g.post(t.Context(), podAt(server.Listener.Addr().String(), "uid"), "/v1/activity", []byte("{}"))
		server.Close()
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		want, known := 1, ""
		if nonce == "short" {
			want, known = 2, nonce
		}
		if asked-before != want || g.nonces.of("uid") != known {
			t.Errorf("nonce %.20q: asked %d times, want %d; remembered %q", nonce, asked-before, want, g.nonces.of("uid"))
		}
	}
	n := newNonces()
	for i := range maxBuckets + 10 {
		n.learn(types.UID(fmt.Sprint(i)), "x")
	}
	if len(n.by) > maxBuckets {
		t.Errorf("%d nonces are remembered", len(n.by))
	}
}

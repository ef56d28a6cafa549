package certs

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const trafficLabel = "certs.example.com/traffic"

type getCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

// endpoint is an admission webhook that admits everything. It closes each connection after one answer, so that every
// call is a full handshake and none rides on the trust of an older one.
type endpoint struct {
	url string

	mu     sync.Mutex
	leaves []*tls.Certificate // in the order they were first served
}

// serveAdmission starts an endpoint. firstServed, if any, is called within the handshake that serves a leaf first.
func serveAdmission(t *testing.T, get getCertificate, firstServed func(*tls.Certificate)) *endpoint {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	e := &endpoint{url: "https://localhost:" + port + "/admit"}
	server := &http.Server{
		Handler:  http.HandlerFunc(admit),
		ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS13,
			GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				c, err := get(hello)
				if err == nil && e.note(c) && firstServed != nil {
					firstServed(c)
				}
				return c, err
			},
		},
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}, // no HTTP/2
	}
	server.SetKeepAlivesEnabled(false)
	go func() { _ = server.ServeTLS(listener, "", "") }()
	t.Cleanup(func() { server.Close() })
	return e
}

func (e *endpoint) note(c *tls.Certificate) (first bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := len(e.leaves); n > 0 && e.leaves[n-1] == c {
		return false
	}
	e.leaves = append(e.leaves, c)
	return true
}

func (e *endpoint) served() []*tls.Certificate {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]*tls.Certificate(nil), e.leaves...)
}

func admit(w http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil || review.Request == nil {
		http.Error(w, "not an AdmissionReview", http.StatusBadRequest)
		return
	}
	review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
	review.Request = nil
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review)
}

// traffic creates ConfigMaps, as dry runs, until it is stopped.
type traffic struct {
	stop             context.CancelFunc
	done             sync.WaitGroup
	admitted, failed atomic.Int64
	firstFailure     atomic.Pointer[error]
}

const (
	trafficWorkers = 2
	trafficPause   = 10 * time.Millisecond
)

func (c *cluster) startTraffic(t *testing.T) *traffic {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	f := &traffic{stop: cancel}
	for range trafficWorkers {
		f.done.Go(func() {
			for ctx.Err() == nil {
				err := c.create(ctx)
				switch {
				case ctx.Err() != nil: // it was interrupted, whatever it says
				case err != nil:
					f.failed.Add(1)
					f.firstFailure.CompareAndSwap(nil, &err)
				default:
					f.admitted.Add(1)
				}
				time.Sleep(trafficPause)
			}
		})
	}
	t.Cleanup(func() { f.end() })
	return f
}

func (f *traffic) end() (admitted, failed int64) {
	f.stop()
	f.done.Wait()
	return f.admitted.Load(), f.failed.Load()
}

// more waits for a number of further answers, so that a state is seen by traffic before it passes.
func (f *traffic) more(t *testing.T, n int64) {
	t.Helper()
	want := f.admitted.Load() + f.failed.Load() + n
	eventually(t, "traffic goes on", func() (bool, error) { return f.admitted.Load()+f.failed.Load() >= want, nil })
}

func (c *cluster) create(ctx context.Context) error {
	_, err := c.client.CoreV1().ConfigMaps(c.name).Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "traffic-", Labels: map[string]string{trafficLabel: c.name}},
	}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

// mustNotFail ends the traffic and fails the test if a single create failed, or if there were too few to tell.
func (f *traffic) mustNotFail(t *testing.T) {
	t.Helper()
	admitted, failed := f.end()
	t.Logf("creates under rotation: %d admitted, %d failed", admitted, failed)
	if failed > 0 {
		t.Errorf("%d of %d creates failed, the first with: %v", failed, admitted+failed, *f.firstFailure.Load())
	}
	if admitted < 50 {
		t.Errorf("only %d creates: too few to say that rotation is safe", admitted)
	}
}

package webhook

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// authority issues client certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	certificate, err := x509.ParseCertificate(der)
	must(t, err)
	return &authority{certificate, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (a *authority) issue(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "apiserver"}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// With a client CA only its clients are heard, and the others are refused before their body is read.
func TestClientCA(t *testing.T) {
	good, bad := newAuthority(t), newAuthority(t)
	file := filepath.Join(t.TempDir(), "ca.crt")
	must(t, os.WriteFile(file, good.pem, 0o600))
	ca, err := LoadClientCA(file, slog.New(slog.DiscardHandler))
	must(t, err)
	a, registry := newTestAdmission(&fakePolicy{})
	var lines bytes.Buffer
	a.Logger = slog.New(slog.NewTextHandler(&lines, nil))
	s := startServerWith(t, a, func(o *Options) { o.ClientCA = ca })
	url := "https://" + s.admission.Addr().String() + "/validate"
	client := func(h2 bool, certificates ...tls.Certificate) *http.Client {
		c := newClient(nil, h2)
		c.Transport.(*http.Transport).TLSClientConfig.Certificates = certificates
		return c
	}
	body := reviewOf(t, newRequest(t))
	for _, h2 := range []bool{false, true} {
		if ok, err := askOnce(client(h2, good.issue(t)), url, body); !ok || err != nil {
			t.Errorf("with a certificate, HTTP/2 %v: %v, %v", h2, ok, err)
		}
		if _, err := askOnce(client(h2, bad.issue(t)), url, body); err == nil {
			t.Errorf("with a certificate of another authority, HTTP/2 %v: no error", h2)
		}
		never, end := io.Pipe() // a body that never comes
		request, err := http.NewRequest(http.MethodPost, url, never)
		must(t, err)
		response, err := client(h2).Do(request)
		must(t, err)
		response.Body.Close()
		if response.StatusCode != http.StatusUnauthorized {
			t.Errorf("without a certificate, HTTP/2 %v: %v; want 401", h2, response)
		}
		end.Close()
	}
	for caller, want := range map[string]string{callerProven: "2", callerRefused: "2", callerUnproven: "0"} {
		if n := metric(t, registry, fmt.Sprintf("agent_lifecycle_admission_callers_total{caller=%q}", caller)); n != want {
			t.Errorf("%s: %s, want %s", caller, n, want)
		}
	}
	// The file is followed, and one without a certificate changes nothing.
	must(t, os.WriteFile(file, []byte("nothing"), 0o600))
	if err := ca.load(); err == nil || !strings.Contains(err.Error(), "accepted are certificates in PEM") {
		t.Errorf("a file without a certificate: %v", err)
	}
	if ok, err := askOnce(client(true, good.issue(t)), url, body); !ok || err != nil {
		t.Errorf("after a bad file: %v, %v", ok, err)
	}
	must(t, os.WriteFile(file, bad.pem, 0o600))
	must(t, ca.load())
	if ok, err := askOnce(client(true, bad.issue(t)), url, body); !ok || err != nil {
		t.Errorf("by the new authority: %v, %v", ok, err)
	}
	if _, err := askOnce(client(true, good.issue(t)), url, body); err == nil {
		t.Error("by the old authority: no error")
	}
	s.stop()
	s.waitStopped(t)
	if n := strings.Count(lines.String(), "source=127.0.0.1 caller=proven"); n != 1 {
		t.Errorf("%d lines say who calls, want 1:\n%s", n, &lines)
	}
}

func TestCallersAreLoggedInBounds(t *testing.T) {
	now := time.Now()
	c := callers{metrics: NewMetrics(prometheus.NewRegistry(), "test"), now: func() time.Time { return now }}
	for i := range 3 * maxLogged {
		if got := c.due(fmt.Sprint(i)); got != (i < maxLogged) {
			t.Errorf("source %d: %v", i, got)
		}
	}
	if c.due("0") {
		t.Error("the same source again at once")
	}
	now = now.Add(logCallerEvery)
	if !c.due("0") || !c.due("new") || len(c.logged) > maxLogged {
		t.Errorf("after a while: %d are remembered", len(c.logged))
	}
}

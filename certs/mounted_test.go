package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// put writes a pair as the kubelet does. keyOf may be another leaf's, for a pair that does not match.
func (v *volume) put(t *testing.T, leaf, keyOf *tls.Certificate) {
	t.Helper()
	certPEM, _ := pemPair(t, leaf)
	_, keyPEM := pemPair(t, keyOf)
	if err := v.write(map[string][]byte{corev1.TLSCertKey: certPEM, corev1.TLSPrivateKeyKey: keyPEM}); err != nil {
		t.Fatal(err)
	}
}

// logged collects a log and finds text in it.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) has(text string) func() (bool, error) {
	return func() (bool, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return strings.Contains(l.text.String(), text), nil
	}
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func serves(source Source, leaf *tls.Certificate) func() (bool, error) {
	return func() (bool, error) {
		c, err := source.GetCertificate(nil)
		return err == nil && c.Leaf.Equal(leaf.Leaf), err
	}
}

// TestMountedRotation replaces first the leaf and then the CA under traffic, with mishaps in between.
func TestMountedRotation(t *testing.T) {
	c := newCluster(t, "mounted")
	now := time.Now()
	ca1 := newTestCA(t, "mounted-ca", now.Add(-time.Hour), now.Add(time.Hour))
	ca2 := newTestCA(t, "mounted-ca", now.Add(-time.Hour), now.Add(time.Hour))
	begin, end := now.Add(-time.Hour), now.Add(time.Hour)
	first, second := ca1.leaf(t, begin, end), ca1.leaf(t, begin, end)
	third, fourth := ca2.leaf(t, begin, end), ca2.leaf(t, begin, end)

	v, events := newVolume(t), &logged{}
	source, err := NewMounted(MountedOptions{
		CertFile: v.path(corev1.TLSCertKey), KeyFile: v.path(corev1.TLSPrivateKeyKey), Logger: events.logger(),
		Config: c.access(t, []string{"list", "watch"}, ""), Registrations: c.registrations(), Settle: 500 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, source)
	eventually(t, "a missing file is told", func() (bool, error) {
		err := source.Ready()
		return err != nil && strings.Contains(err.Error(), "no such file"), err
	})
	v.put(t, first, first)
	eventually(t, "the first is served though nothing trusts it", serves(source, first))
	e := serveAdmission(t, source.GetCertificate, nil)
	c.register(t, encodeBundle([]*x509.Certificate{ca1.cert}), nil, e.url)
	eventually(t, "ready", isReady(source))
	load := c.startTraffic(t)
	load.more(t, 20)

	v.put(t, second, second)
	eventually(t, "a trusted leaf is served", serves(source, second))
	load.more(t, 20)

	v.put(t, third, second)
	eventually(t, "a pair that does not match is told", events.has("private key does not match"))
	load.more(t, 20)

	v.put(t, third, third)
	eventually(t, "a leaf of another CA is told to wait", events.has("lacks the certificate's issuer"))
	load.more(t, 20)
	if ok, _ := serves(source, second)(); !ok {
		t.Error("the old leaf is no longer served, though nothing trusts the new one")
	}
	if err := source.Ready(); err != nil {
		t.Errorf("not ready while the old leaf is good: %v", err)
	}

	c.setBundles(t, encodeBundle([]*x509.Certificate{ca1.cert, ca2.cert}))
	eventually(t, "the bundles brought the new leaf into service", serves(source, third))
	load.more(t, 20)
	c.setBundles(t, encodeBundle([]*x509.Certificate{ca2.cert}))
	v.put(t, fourth, fourth)
	eventually(t, "the old CA is not needed any more", serves(source, fourth))
	load.more(t, 20)
	load.mustNotFail(t)
}

// TestMountedAlone has no configurations to wait for.
func TestMountedAlone(t *testing.T) {
	now := time.Now()
	ca := newTestCA(t, "mounted-ca", now.Add(-time.Hour), now.Add(time.Hour))
	first, second := ca.leaf(t, now, now.Add(time.Hour)), ca.leaf(t, now, now.Add(time.Minute))
	v := newVolume(t)
	v.put(t, first, first)
	source, err := NewMounted(MountedOptions{
		CertFile: v.path(corev1.TLSCertKey), KeyFile: v.path(corev1.TLSPrivateKeyKey),
		Logger: testLogger(t), Settle: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, source)
	eventually(t, "ready at once", isReady(source))
	v.put(t, second, second)
	eventually(t, "the new leaf is served at once", serves(source, second))
	if got := source.NotAfter(); !got.Equal(second.Leaf.NotAfter) {
		t.Errorf("NotAfter: got %s, want %s", got, second.Leaf.NotAfter)
	}
}

// TestMountedExpired replaces an expired leaf though nothing trusts the new one: it cannot be worse.
func TestMountedExpired(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "mounted-expired")
	now := time.Now()
	ca, other := newTestCA(t, "mounted-ca", now, now.Add(time.Hour)), newTestCA(t, "other", now, now.Add(time.Hour))
	first, second := ca.leaf(t, now, now.Add(3*time.Second)), ca.leaf(t, now, now.Add(time.Hour))
	v, events := newVolume(t), &logged{}
	v.put(t, first, first)
	source, err := NewMounted(MountedOptions{
		CertFile: v.path(corev1.TLSCertKey), KeyFile: v.path(corev1.TLSPrivateKeyKey), Logger: events.logger(),
		Config: c.access(t, []string{"list", "watch"}, ""), Registrations: c.registrations(), Settle: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, source)
	eventually(t, "the first is served", serves(source, first))
	eventually(t, "missing configurations are told", func() (bool, error) {
		err := source.Ready()
		return err != nil && strings.Contains(err.Error(), "does not exist"), err
	})
	c.register(t, encodeBundle([]*x509.Certificate{other.cert}), nil, "https://localhost:1/")
	v.put(t, second, second)
	eventually(t, "the second is served when the first has expired", serves(source, second))
	if time.Now().Before(first.Leaf.NotAfter) {
		t.Error("the second was served before the first had expired")
	}
	if ok, _ := events.has("before it is trusted")(); !ok {
		t.Error("nothing was logged about it")
	}
	if err := source.Ready(); err == nil || !strings.Contains(err.Error(), "lacks the certificate's issuer") {
		t.Errorf("Ready: got %v, want what is missing", err)
	}
}

// TestPairFilesTellsChangesOnly matters because every pair told is a new candidate, which settles anew.
func TestPairFilesTellsChangesOnly(t *testing.T) {
	now := time.Now()
	ca := newTestCA(t, "mounted-ca", now, now.Add(time.Hour))
	first, second := ca.leaf(t, now, now.Add(time.Hour)), ca.leaf(t, now, now.Add(time.Hour))
	v := newVolume(t)
	files := &pairFiles{certFile: v.path(corev1.TLSCertKey), keyFile: v.path(corev1.TLSPrivateKeyKey)}
	steps := []struct {
		name        string
		leaf, keyOf *tls.Certificate
		want        *tls.Certificate
		fails       bool
	}{
		{name: "the first", leaf: first, keyOf: first, want: first},
		{name: "the same in other files", leaf: first, keyOf: first},
		{name: "another's key", leaf: second, keyOf: first, fails: true},
		{name: "back to the first", leaf: first, keyOf: first},
		{name: "the second", leaf: second, keyOf: second, want: second},
	}
	for _, step := range steps {
		v.put(t, step.leaf, step.keyOf)
		got, err := files.read()
		if (err != nil) != step.fails {
			t.Errorf("%s: got error %v, want one: %t", step.name, err, step.fails)
		}
		if (got == nil) != (step.want == nil) || got != nil && !got.Leaf.Equal(step.want.Leaf) {
			t.Errorf("%s: got another pair than wanted, or none", step.name)
		}
	}
}

func TestNewMountedRefuses(t *testing.T) {
	_, err := NewMounted(MountedOptions{
		CertFile: "tls.crt", Registrations: Registrations{Mutating: []string{"x"}}, Settle: -1,
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"KeyFile", "Config, Registrations", "Settle"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not mention %s", err, want)
		}
	}
}

// TestRunEnds holds that a source ends without an error although it never got anywhere.
func TestRunEnds(t *testing.T) {
	v := newVolume(t)
	source, err := NewMounted(MountedOptions{
		CertFile: v.path("missing/tls.crt"), KeyFile: v.path("missing/tls.key"), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := source.Run(ctx); err != nil {
		t.Error(err)
	}
}

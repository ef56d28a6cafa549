package certs

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// TestKeeper walks one keeper through its life: first leaf, trust, rotation, a bundle that is lost and found, expiry.
func TestKeeper(t *testing.T) {
	start := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	now := start
	k := newKeeper(slog.New(slog.DiscardHandler), 0)
	k.now = func() time.Time { return now }

	first := newTestCA(t, caCommonName, start, start.Add(48*time.Hour))
	second := newTestCA(t, caCommonName, start, start.Add(48*time.Hour))
	leaf1 := first.leaf(t, start, start.Add(time.Hour))
	leaf2, leaf3 := second.leaf(t, start, start.Add(2*time.Hour)), second.leaf(t, start, start.Add(2*time.Hour))
	trusting := func(cas ...*testCA) []registration {
		var bundle []*x509.Certificate
		for _, ca := range cas {
			bundle = append(bundle, ca.cert)
		}
		return []registration{{kind: kindMutating, name: "ours", state: present, webhooks: []webhook{
			{name: "w", serverName: "localhost", caBundle: encodeBundle(bundle)},
		}}}
	}

	if _, err := k.GetCertificate(nil); err == nil || k.Ready() == nil || !k.NotAfter().IsZero() {
		t.Fatal("a new keeper claims to have a certificate")
	}
	type want struct {
		serial string
		ready  string // "" for ready
	}
	serial1, serial3 := leaf1.Leaf.SerialNumber.String(), leaf3.Leaf.SerialNumber.String()
	gone := []registration{{kind: kindMutating, name: "ours", state: absent}}
	steps := []struct {
		name          string
		after         time.Duration
		candidate     *tls.Certificate
		registrations []registration
		want          want
	}{
		{"the first is served untrusted", 0, leaf1, gone, want{serial1, "does not exist"}},
		{"trust must settle", time.Second, leaf1, trusting(first), want{serial1, "giving API servers time"}},
		{"trust was lost while it settled", time.Second, leaf1, trusting(), want{serial1, "holds no certificate"}},
		{"and begins anew", 5 * time.Second, leaf1, trusting(first), want{serial1, "giving API servers time"}},
		{"trust has settled", 2 * time.Second, leaf1, trusting(first), want{serial1, ""}},
		{"a lost bundle leaves it ready", time.Second, leaf1, trusting(), want{serial1, ""}},
		{"the second must wait", time.Second, leaf2, trusting(first), want{serial1, ""}},
		{"until it is trusted", time.Second, leaf2, trusting(first, second), want{serial1, ""}},
		{"and, when replaced, begins anew", 2 * time.Second, leaf3, trusting(first, second), want{serial1, ""}},
		{"until that has settled", 2 * time.Second, leaf3, trusting(first, second), want{serial3, ""}},
		{"an expired one is not ready", 2 * time.Hour, leaf3, trusting(first, second), want{serial3, "expired"}},
	}
	for _, step := range steps {
		now = now.Add(step.after)
		k.consider(step.candidate, step.registrations, nil)
		got, err := k.GetCertificate(nil)
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if serial := got.Leaf.SerialNumber.String(); serial != step.want.serial {
			t.Errorf("%s: serves %s, want %s", step.name, serial, step.want.serial)
		}
		switch err := k.Ready(); {
		case step.want.ready == "" && err != nil:
			t.Errorf("%s: not ready: %v", step.name, err)
		case step.want.ready != "" && (err == nil || !strings.Contains(err.Error(), step.want.ready)):
			t.Errorf("%s: ready says %v, want %q in it", step.name, err, step.want.ready)
		}
	}
}

func TestCollector(t *testing.T) {
	k := newKeeper(slog.New(slog.DiscardHandler), 0)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(NewCollector(&mounted{keeper: k}))
	gather := func() map[string]float64 {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		values := map[string]float64{}
		for _, family := range families {
			values[family.GetName()] = family.GetMetric()[0].GetGauge().GetValue()
		}
		return values
	}
	if diff := cmp.Diff(map[string]float64{"agent_lifecycle_certificate_trusted": 0}, gather()); diff != "" {
		t.Errorf("without a certificate (-want +got):\n%s", diff)
	}
	now := time.Unix(1_800_000_000, 0)
	k.now = func() time.Time { return now }
	k.consider(newTestCA(t, caCommonName, now, now.Add(time.Hour)).leaf(t, now, now.Add(time.Hour)), nil, nil)
	want := map[string]float64{
		"agent_lifecycle_certificate_trusted":                     1,
		"agent_lifecycle_certificate_not_after_timestamp_seconds": 1_800_003_600,
	}
	if diff := cmp.Diff(want, gather()); diff != "" {
		t.Errorf("with a certificate (-want +got):\n%s", diff)
	}
}

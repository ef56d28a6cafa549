package certs

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
)

func TestDecide(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	const settle = 2 * time.Second
	oldCA := newTestCA(t, caCommonName, now.Add(-time.Hour), now.Add(time.Hour))
	newCA := newTestCA(t, caCommonName, now.Add(-time.Minute), now.Add(time.Hour))
	oldLeaf := oldCA.leaf(t, now.Add(-time.Hour), now.Add(30*time.Minute))
	expiredLeaf := oldCA.leaf(t, now.Add(-time.Hour), now)
	newLeaf := newCA.leaf(t, now.Add(-time.Minute), now.Add(time.Hour))
	expiredNewLeaf := newCA.leaf(t, now.Add(-time.Hour), now.Add(-time.Second))

	bundle := func(cas ...*testCA) webhook {
		var list []*x509.Certificate
		for _, ca := range cas {
			list = append(list, ca.cert)
		}
		return webhook{name: "w.example.com", serverName: "localhost", caBundle: encodeBundle(list)}
	}
	registered := func(webhooks ...webhook) registration {
		return registration{kind: kindValidating, name: "ours", state: present, webhooks: webhooks}
	}
	wrongName := bundle(oldCA, newCA)
	wrongName.serverName = "elsewhere"
	both, onlyOld, onlyNew := registered(bundle(oldCA, newCA)), registered(bundle(oldCA)), registered(bundle(newCA))

	tests := map[string]struct {
		served, candidate *tls.Certificate
		registrations     []registration
		trustedSince      time.Time
		serve             bool
		missing           string // "" for none
		again             time.Time
	}{
		"trusted and settled": {
			served: oldLeaf, candidate: newLeaf,
			registrations: []registration{both, both}, trustedSince: now.Add(-settle), serve: true,
		},
		"trusted a moment ago": {
			served: oldLeaf, candidate: newLeaf, registrations: []registration{both}, trustedSince: now.Add(-time.Second),
			missing: "giving API servers time", again: now.Add(time.Second),
		},
		"one configuration lacks the new CA": {
			served: oldLeaf, candidate: newLeaf, registrations: []registration{both, onlyOld},
			missing: `"ours" webhook "w.example.com": clientConfig.caBundle lacks the certificate's issuer`,
			again:   oldLeaf.Leaf.NotAfter,
		},
		"one webhook lacks the new CA": {
			served: oldLeaf, candidate: newLeaf, registrations: []registration{registered(bundle(oldCA, newCA), bundle(oldCA))},
			missing: "lacks the certificate's issuer", again: oldLeaf.Leaf.NotAfter,
		},
		"no webhook trusts it": {
			served: oldLeaf, candidate: newLeaf, registrations: []registration{registered(bundle(), bundle(oldCA), bundle())},
			missing: "holds no certificate, and 2 more webhooks", again: oldLeaf.Leaf.NotAfter,
		},
		"a bundle was emptied": {
			served: oldLeaf, candidate: newLeaf, registrations: []registration{registered(bundle())},
			missing: "holds no certificate", again: oldLeaf.Leaf.NotAfter,
		},
		"a configuration is gone": {
			served: oldLeaf, candidate: newLeaf,
			registrations: []registration{{kind: kindMutating, name: "ours", state: absent}},
			missing:       `MutatingWebhookConfiguration "ours" does not exist`, again: oldLeaf.Leaf.NotAfter,
		},
		"nothing was read yet": {
			served: oldLeaf, candidate: newLeaf, registrations: []registration{{kind: kindMutating, name: "ours"}},
			missing: "has not been read", again: oldLeaf.Leaf.NotAfter,
		},
		"the name does not match": {
			served: oldLeaf, candidate: newLeaf, registrations: []registration{registered(wrongName)},
			missing: "not elsewhere", again: oldLeaf.Leaf.NotAfter,
		},
		"the new one has expired already": {
			served: oldLeaf, candidate: expiredNewLeaf, registrations: []registration{both},
			missing: "expired", again: oldLeaf.Leaf.NotAfter,
		},
		"the old one is trusted nowhere": {
			served: oldLeaf, candidate: newLeaf, registrations: []registration{onlyNew}, trustedSince: now, serve: true,
		},
		"each is trusted somewhere": {
			served: oldLeaf, candidate: newLeaf, registrations: []registration{onlyNew, onlyOld},
			missing: "lacks the certificate's issuer", again: oldLeaf.Leaf.NotAfter,
		},
		"the old one has expired": {
			served: expiredLeaf, candidate: newLeaf,
			registrations: []registration{onlyOld}, serve: true, missing: "lacks the certificate's issuer",
		},
		"the first is served untrusted": {
			candidate: newLeaf, registrations: []registration{onlyOld}, serve: true, missing: "lacks the certificate's issuer",
		},
		"the first is served unsettled": {
			candidate: newLeaf, registrations: []registration{both}, trustedSince: now, serve: true,
			missing: "giving API servers time", again: now.Add(settle),
		},
		"the first goes on waiting in service": {
			served: newLeaf, candidate: newLeaf,
			registrations: []registration{onlyOld}, missing: "lacks the certificate's issuer",
		},
		"the first has settled in service": {
			served: newLeaf, candidate: newLeaf,
			registrations: []registration{both}, trustedSince: now.Add(-settle), serve: true,
		},
		"nobody to wait for": {served: oldLeaf, candidate: newLeaf, serve: true},
		"a configuration without webhooks": {
			served: oldLeaf, candidate: newLeaf,
			registrations: []registration{registered()}, trustedSince: now.Add(-settle), serve: true,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := decide(view{
				now: now, served: test.served, candidate: test.candidate, registrations: test.registrations,
				trustedSince: test.trustedSince, settle: settle,
			})
			if got.serve != test.serve {
				t.Errorf("serve: got %t, want %t", got.serve, test.serve)
			}
			switch {
			case test.missing == "" && got.missing != nil:
				t.Errorf("missing: got %q, want nothing", got.missing)
			case test.missing != "" && (got.missing == nil || !strings.Contains(got.missing.Error(), test.missing)):
				t.Errorf("missing: got %v, want %q in it", got.missing, test.missing)
			}
			if !got.again.Equal(test.again) {
				t.Errorf("again: got %s, want %s", got.again, test.again)
			}
		})
	}
}

func TestServerName(t *testing.T) {
	address := func(url string) admissionregistrationv1.WebhookClientConfig {
		return admissionregistrationv1.WebhookClientConfig{URL: &url}
	}
	tests := map[string]struct {
		config admissionregistrationv1.WebhookClientConfig
		want   string
	}{
		"service": {
			config: admissionregistrationv1.WebhookClientConfig{
				Service: &admissionregistrationv1.ServiceReference{Name: "webhook", Namespace: "system"},
			},
			want: "webhook.system.svc",
		},
		"url":          {config: address("https://localhost:9443/validate"), want: "localhost"},
		"url, no port": {config: address("https://webhook.example.com/validate"), want: "webhook.example.com"},
		"neither":      {},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := serverName(test.config); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

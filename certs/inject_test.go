package certs

import (
	"crypto/x509"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestInjectLosesARace computes a bundle from a version that somebody else has replaced meanwhile.
func TestInjectLosesARace(t *testing.T) {
	c := newCluster(t, "race")
	now := time.Now()
	ours := newTestCA(t, caCommonName, now, now.Add(time.Hour)).cert
	theirs := newTestCA(t, caCommonName, now, now.Add(time.Hour)).cert
	a := authorities{required: []*x509.Certificate{ours}, current: ours, currentSince: now, retention: time.Hour}
	c.register(t, nil, nil, "https://localhost:1/", "https://localhost:2/")
	injector := newInjector(c.client.AdmissionregistrationV1(), testLogger(t))

	read := func() []registration {
		t.Helper()
		config, err := c.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().
			Get(t.Context(), c.name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		r := registration{kind: kindValidating, name: c.name, state: present, resourceVersion: config.ResourceVersion}
		for _, w := range config.Webhooks {
			r.webhooks = append(r.webhooks, newWebhook(w.Name, w.ClientConfig))
		}
		return []registration{r}
	}
	inject := func(registrations []registration) time.Duration {
		t.Helper()
		again, err := injector.inject(t.Context(), registrations, a, now)
		if err != nil {
			t.Fatal(err)
		}
		return again
	}

	outdated := read()
	c.setBundles(t, encodeBundle([]*x509.Certificate{theirs}))
	if again := inject(outdated); again != writeInterval {
		t.Errorf("too late: again in %s, want %s", again, writeInterval)
	}
	for _, w := range read()[0].webhooks {
		if got := parseBundle(w.caBundle); len(got) != 1 || !got[0].Equal(theirs) {
			t.Errorf("webhook %q was written from an outdated version", w.name)
		}
	}
	if again := inject(outdated); again != writeInterval {
		t.Errorf("the same version once more: again in %s, want to wait %s", again, writeInterval)
	}
	if again := inject(read()); again != 0 {
		t.Errorf("from the newer version: again in %s, want never", again)
	}
	for _, w := range read()[0].webhooks {
		if got := parseBundle(w.caBundle); len(got) != 2 || !contains(got, ours) || !contains(got, theirs) {
			t.Errorf("webhook %q has %d certificates, want ours and theirs", w.name, len(got))
		}
	}
	if again := inject(read()); again != 0 {
		t.Errorf("nothing to do: again in %s, want never", again)
	}
	c.setBundles(t, nil)
	if again := inject(read()); again != writeInterval {
		t.Errorf("right after a write: again in %s, want to wait %s", again, writeInterval)
	}
}

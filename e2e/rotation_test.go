//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	caSecret      = "lifecycle-webhook-ca"
	leafExpiry    = "agent_lifecycle_certificate_not_after_timestamp_seconds"
	leafTrusted   = "agent_lifecycle_certificate_trusted"
	caCertificate = "tls.crt"
	wantTrusted   = 1.0
)

// A CA that is lost is replaced, and every server serves a certificate of the new one, without a lost request.
func TestCertificateRotation(t *testing.T) {
	defer keepEvidence(t)
	secrets := client.CoreV1().Secrets(systemNamespace)
	old, err := secrets.Get(t.Context(), caSecret, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pods, err := servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	expiry := map[string]float64{}
	for _, pod := range pods {
		if expiry[pod.Name], err = metric(t.Context(), pod.Name, leafExpiry); err != nil {
			t.Fatal(err)
		}
	}

	requests := startTraffic(t)
	if err := secrets.Delete(t.Context(), caSecret, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, clusterTimeout, func(ctx context.Context) error {
		secret, err := secrets.Get(ctx, caSecret, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if string(secret.Data[caCertificate]) == string(old.Data[caCertificate]) {
			return fmt.Errorf("Secret %s still holds the old CA", caSecret)
		}
		for name, was := range expiry {
			now, err := metric(ctx, name, leafExpiry)
			if err != nil {
				return err
			}
			trusted, err := metric(ctx, name, leafTrusted)
			if err != nil {
				return err
			}
			if now <= was || trusted != wantTrusted {
				return fmt.Errorf("server %s serves a certificate that expires %+.0f s from the old one, trusted: %.0f",
					name, now-was, trusted)
			}
		}
		return nil
	})
	// API servers make new connections for a changed caBundle.
	requests.goOn(t, 500)
	requests.check(t)
}

// Package certs keeps the serving certificate of the admission webhook server current and trusted, without a restart.
//
// With failurePolicy Fail a handshake that the API server rejects is a create that a user cannot make. So a new
// certificate is never served just because it exists: the old one stays in service until the caBundle of every
// webhook that calls the server verifies the new one, and a moment longer, because API servers learn of the bundle
// by watch.
//
// There are two sources. NewSelfManaged needs nothing else installed: it keeps a CA in a Secret that all replicas
// share, signs leaves with it and writes the caBundle itself. NewMounted serves a pair of files, such as a mounted
// Secret of cert-manager's, and leaves the caBundle to cert-manager's cainjector.
package certs

import (
	"context"
	"crypto/tls"
	"time"
)

// Source supplies the certificate for each TLS handshake and keeps it trusted.
type Source interface {
	// Run keeps the certificate current until ctx ends; then it returns nil. It may be called once. An error means that
	// the certificate is no longer kept current and the process should end.
	Run(ctx context.Context) error

	// GetCertificate plugs into tls.Config.GetCertificate. A certificate that is not trusted yet is served rather than
	// none, so that probes, which verify nothing, get through; Ready tells the two apart. It fails only while there is
	// no certificate at all.
	GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error)

	// Ready is nil once the certificate in service was trusted by every named webhook configuration; else it says what
	// is missing. For /readyz. It stays nil when a configuration loses its bundle later: all replicas turning unready
	// at once would lengthen that outage, not end it.
	Ready() error

	// NotAfter is the moment the certificate in service expires; zero while there is none.
	NotAfter() time.Time
}

// Registrations names the webhook configurations whose webhooks call the server. Every webhook in them is taken to be
// served with the certificate of this source.
type Registrations struct {
	// Mutating names MutatingWebhookConfigurations.
	Mutating []string
	// Validating names ValidatingWebhookConfigurations.
	Validating []string
}

// DefaultSettle is how long a new certificate waits after all bundles were seen to verify it. The watches of API
// servers bring a bundle within milliseconds; the rest is for a busy one, and for one whose clock is behind, as a leaf
// of the self-managed CA is valid from the second it was signed.
const DefaultSettle = 2 * time.Second

package certs

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// keeper holds the certificate in service and replaces it when the decision says so. Both sources are one, plus a way
// to come by candidates.
type keeper struct {
	log    *slog.Logger
	settle time.Duration
	now    func() time.Time

	mu sync.RWMutex
	// served is nil before the first certificate.
	served *tls.Certificate
	// missing is why served does not count as trusted; nil once it did.
	missing error

	// What follows belongs to the goroutine that calls consider.
	candidate    *tls.Certificate
	trustedSince time.Time
	lastWait     string
}

func newKeeper(log *slog.Logger, settle time.Duration) *keeper {
	if settle == 0 {
		settle = DefaultSettle
	}
	return &keeper{log: log, settle: settle, now: time.Now, missing: errors.New("there is no certificate yet")}
}

// consider looks at the newest candidate, which may be the one it saw before, and at the registrations. trouble is what
// keeps these from becoming right, if anything; Ready tells it along. It returns when to call again although nothing
// changed; zero for never.
func (k *keeper) consider(
	candidate *tls.Certificate, registrations []registration, trouble error,
) (again time.Time) {
	now := k.now()
	if candidate != k.candidate {
		k.candidate, k.trustedSince = candidate, time.Time{}
	}
	served, missing := k.current()
	if served == candidate && missing == nil {
		k.lastWait = ""
		return time.Time{}
	}
	switch trusted := untrusted(candidate, registrations, now) == nil; {
	case !trusted:
		k.trustedSince = time.Time{}
	case k.trustedSince.IsZero():
		k.trustedSince = now
	}
	d := decide(view{
		now: now, served: served, candidate: candidate, registrations: registrations,
		trustedSince: k.trustedSince, settle: k.settle,
	})
	if d.missing != nil {
		d.missing = errors.Join(d.missing, trouble)
	}
	k.apply(d, served, candidate)
	return d.again
}

// lacking says why there is not even a candidate, for Ready.
func (k *keeper) lacking(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.served == nil {
		k.missing = fmt.Errorf("there is no certificate yet: %w", err)
	}
}

func (k *keeper) apply(d decision, served, candidate *tls.Certificate) {
	k.mu.Lock()
	switch {
	case d.serve:
		k.served, k.missing = candidate, d.missing
	case k.missing != nil: // what is in service is not ready either, and waits for the same
		k.missing = d.missing
	}
	k.mu.Unlock()
	log := k.log.With("serial", candidate.Leaf.SerialNumber.Text(16), "notAfter", candidate.Leaf.NotAfter)
	if d.missing == nil {
		k.lastWait = ""
		if d.hurried != "" {
			log = log.With("hurried", d.hurried)
		}
		log.Info("Serving a trusted certificate")
		return
	}
	told := k.lastWait == d.missing.Error()
	k.lastWait = d.missing.Error()
	switch {
	case d.serve && served != nil && served != candidate:
		log.Warn("Serving a certificate before it is trusted", "because", d.hurried, "missing", d.missing)
	case !told:
		log.Info("The new certificate is not trusted yet", "inService", d.serve || served == candidate, "missing", d.missing)
	}
}

func (k *keeper) current() (served *tls.Certificate, missing error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.served, k.missing
}

// GetCertificate implements Source.
func (k *keeper) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	served, missing := k.current()
	if served == nil {
		return nil, fmt.Errorf("serving certificate: %w", missing)
	}
	return served, nil
}

// Ready implements Source.
func (k *keeper) Ready() error {
	served, missing := k.current()
	switch {
	case missing != nil:
		return fmt.Errorf("serving certificate: %w", missing)
	case expired(served, k.now()):
		return fmt.Errorf("serving certificate: expired at %s", served.Leaf.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// NotAfter implements Source.
func (k *keeper) NotAfter() time.Time {
	served, _ := k.current()
	if served == nil {
		return time.Time{}
	}
	return served.Leaf.NotAfter
}

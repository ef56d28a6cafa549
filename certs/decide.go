package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// view is everything the decision depends on, at one moment.
type view struct {
	now time.Time
	// served is the leaf in service, nil before the first.
	served *tls.Certificate
	// candidate is the newest leaf; the same as served when nothing newer waits.
	candidate *tls.Certificate
	// registrations has one entry for each configuration that was named.
	registrations []registration
	// trustedSince is when all registrations were first seen to verify candidate, zero if they do not. They must not
	// have stopped since.
	trustedSince time.Time
	settle       time.Duration
}

// decision is what to do with the candidate.
type decision struct {
	// serve puts the candidate into service.
	serve bool
	// missing is nil when the candidate counts as trusted; else it says what it waits for.
	missing error
	// again is when time alone could change the decision; zero for never.
	again time.Time
	// hurried says why an untrusted or unsettled candidate goes into service all the same.
	hurried string
}

// decide holds the one rule of this package: the old leaf stays until the new one is trusted everywhere and API servers
// have had time to notice, unless the old one is of no use any more.
func decide(v view) decision {
	missing := untrusted(v.candidate, v.registrations, v.now)
	if missing == nil {
		settled := v.trustedSince.Add(v.settle)
		switch {
		case len(v.registrations) == 0 || !v.now.Before(settled):
			return decision{serve: true}
		case v.served != nil && untrusted(v.served, v.registrations, v.now) != nil:
			return decision{serve: true, hurried: "the old one is no longer trusted"}
		}
		return v.hurry(decision{missing: errSettling, again: settled})
	}
	d := decision{missing: missing}
	if v.served != nil && v.served != v.candidate && !expired(v.served, v.now) {
		d.again = v.served.Leaf.NotAfter
	}
	return v.hurry(d)
}

// hurry serves a candidate that ought to wait where waiting does no good.
func (v view) hurry(d decision) decision {
	switch {
	case v.served == nil:
		d.serve, d.hurried = true, "it is the first"
	case expired(v.served, v.now):
		d.serve, d.hurried = true, "the old one has expired"
	}
	return d
}

var errSettling = errors.New("giving API servers time to notice that every bundle trusts it")

func expired(c *tls.Certificate, now time.Time) bool {
	return !now.Before(c.Leaf.NotAfter)
}

// untrusted is nil when every webhook of every registration would accept the certificate, verified just as the API
// server does it; else it names the first that would not in each. A configuration that is absent trusts nothing: when
// it comes, it comes with a bundle of its own.
func untrusted(c *tls.Certificate, registrations []registration, now time.Time) error {
	var missing []string
	for _, r := range registrations {
		if why := r.untrusted(c, now); why != "" {
			missing = append(missing, fmt.Sprintf("%s %q %s", r.kind, r.name, why))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return errors.New(strings.Join(missing, "; "))
}

func (r registration) untrusted(c *tls.Certificate, now time.Time) (why string) {
	switch r.state {
	case unread:
		return "has not been read yet"
	case absent:
		return "does not exist"
	}
	more := 0
	for _, w := range r.webhooks {
		err := w.verify(c, now)
		switch {
		case err == nil:
		case why == "":
			why = fmt.Sprintf("webhook %q: %v", w.name, err)
		default:
			more++
		}
	}
	if more > 0 {
		why += fmt.Sprintf(", and %d more webhooks", more)
	}
	return why
}

func (w webhook) verify(c *tls.Certificate, now time.Time) error {
	authorities := parseBundle(w.caBundle)
	if len(authorities) == 0 {
		return errors.New("clientConfig.caBundle holds no certificate")
	}
	roots := x509.NewCertPool()
	for _, a := range authorities {
		roots.AddCert(a)
	}
	intermediates := x509.NewCertPool()
	for _, der := range c.Certificate[1:] {
		if i, err := x509.ParseCertificate(der); err == nil {
			intermediates.AddCert(i)
		}
	}
	_, err := c.Leaf.Verify(x509.VerifyOptions{
		DNSName:       w.serverName,
		Roots:         roots,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if unknown := (x509.UnknownAuthorityError{}); errors.As(err, &unknown) {
		return fmt.Errorf("clientConfig.caBundle lacks the certificate's issuer %q", c.Leaf.Issuer)
	}
	return err
}

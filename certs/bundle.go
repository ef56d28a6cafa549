package certs

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"time"
)

const (
	// maxBundle bounds a bundle to what a storm of rotations may leave in it, far from the size limit of an object.
	maxBundle = 16

	// skew is how far the clocks of replicas may be apart. Nothing is removed from a bundle before it is due by the
	// slowest clock, or replicas would add and remove it in turns.
	skew = time.Hour
)

// authorities says which CAs a bundle must hold and which it may lose.
type authorities struct {
	// required are the CAs of leaves that this replica serves or is about to serve.
	required []*x509.Certificate
	// current is the CA in the Secret, or nil while that is unknown.
	current *x509.Certificate
	// currentSince is when this replica first saw the current CA.
	currentSince time.Time
	// retention is how long after its replacement a CA stays, so that other replicas may serve out their leaves.
	retention time.Duration
}

// mergeBundle returns the bundle with every required CA in it, and whether that differs from what was there. What is
// already there keeps its place and, unless it may go, stays, whoever put it there: another replica may need it.
// Text that is no certificate counts for nothing, as the API server skips it too.
func mergeBundle(bundle []byte, a authorities, now time.Time) (merged []byte, changed bool) {
	var result []*x509.Certificate
	for _, c := range parseBundle(bundle) {
		switch {
		case contains(result, c):
		case !contains(a.required, c) && a.mayGo(c, now):
			changed = true
		default:
			result = append(result, c)
		}
	}
	for _, c := range a.required {
		if !contains(result, c) && now.Before(c.NotAfter) {
			result = append(makeRoom(result, a.required), c)
			changed = true
		}
	}
	if !changed {
		return bundle, false
	}
	return encodeBundle(result), true
}

// mayGo says whether no replica can still need c: it expired, or it is one of our CAs and was replaced so long ago that
// every leaf it signed has expired. The replacement's NotBefore tells when that was, so that replicas agree without
// keeping notes.
func (a authorities) mayGo(c *x509.Certificate, now time.Time) bool {
	if now.After(c.NotAfter.Add(skew)) {
		return true
	}
	if a.current == nil || !bytes.Equal(c.RawSubject, a.current.RawSubject) || !c.NotBefore.Before(a.current.NotBefore) {
		return false
	}
	// A Secret restored from a backup holds an old CA again. Its dates do not tell when it came back, but this replica
	// knows since when it has seen it.
	return now.After(a.current.NotBefore.Add(a.retention)) && now.After(a.currentSince.Add(skew))
}

// makeRoom drops the certificates that end first until one more fits.
func makeRoom(bundle, keep []*x509.Certificate) []*x509.Certificate {
	for len(bundle) >= maxBundle {
		var spare []*x509.Certificate
		for _, c := range bundle {
			if !contains(keep, c) {
				spare = append(spare, c)
			}
		}
		if len(spare) == 0 {
			return bundle
		}
		first := slices.MinFunc(spare, func(x, y *x509.Certificate) int {
			return cmp.Or(x.NotAfter.Compare(y.NotAfter), bytes.Compare(x.Raw, y.Raw))
		})
		bundle = slices.DeleteFunc(bundle, first.Equal)
	}
	return bundle
}

func contains(list []*x509.Certificate, c *x509.Certificate) bool {
	return slices.ContainsFunc(list, c.Equal)
}

func parseBundle(bundle []byte) []*x509.Certificate {
	var result []*x509.Certificate
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			result = append(result, c)
		}
	}
	return result
}

func encodeBundle(list []*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range list {
		// Encode fails only when the writer does, and a buffer never does.
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return out.Bytes()
}

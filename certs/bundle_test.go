package certs

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMergeBundle(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	ca := func(name string, notBefore, notAfter time.Duration) *x509.Certificate {
		return newTestCA(t, name, now.Add(notBefore), now.Add(notAfter)).cert
	}
	var (
		current    = ca(caCommonName, -20*day, 345*day)
		fresh      = ca(caCommonName, -time.Minute, 365*day)
		replaced   = ca(caCommonName, -200*day, 165*day)
		foreign    = ca("somebody-else", -200*day, 165*day)
		overdue    = ca("somebody-else", -200*day, -2*time.Hour)
		justOver   = ca("somebody-else", -200*day, -time.Minute)
		ourOverdue = ca(caCommonName, -200*day, -2*time.Hour)
	)
	names := map[string]string{}
	for name, c := range map[string]*x509.Certificate{
		"current": current, "fresh": fresh, "replaced": replaced, "foreign": foreign,
		"overdue": overdue, "justOver": justOver, "ourOverdue": ourOverdue,
	} {
		names[string(c.Raw)] = name
	}
	steady := authorities{
		required: []*x509.Certificate{current}, current: current, currentSince: now.Add(-day), retention: 14 * day,
	}
	with := func(change func(*authorities)) authorities {
		a := steady
		change(&a)
		return a
	}
	list := func(c ...*x509.Certificate) []*x509.Certificate { return c }

	tests := map[string]struct {
		bundle  []*x509.Certificate
		raw     string // instead of bundle
		a       authorities
		want    []string
		changed bool
	}{
		"an empty bundle gets the CA": {a: steady, want: []string{"current"}, changed: true},
		"a complete bundle is left":   {bundle: list(current), a: steady, want: []string{"current"}},
		"garbage is replaced":         {raw: "no PEM", a: steady, want: []string{"current"}, changed: true},
		"garbage beside the CA is left": {
			raw: "# ours\n" + string(encodeBundle(list(current))), a: steady, want: []string{"current"},
		},
		"nothing is known yet": {a: authorities{}},
		"the served and the new CA": {
			a:    with(func(a *authorities) { a.required = list(current, fresh); a.current = fresh }),
			want: []string{"current", "fresh"}, changed: true,
		},
		"others keep their place": {
			bundle: list(foreign, current),
			a:      with(func(a *authorities) { a.required = list(current, fresh); a.current = fresh; a.currentSince = now }),
			want:   []string{"foreign", "current", "fresh"}, changed: true,
		},
		"expired by any clock goes": {
			bundle: list(overdue, current, ourOverdue), a: steady, want: []string{"current"}, changed: true,
		},
		"expired by this clock stays": {bundle: list(justOver, current), a: steady, want: []string{"justOver", "current"}},
		"an expired one is never added": {
			bundle: list(current), a: with(func(a *authorities) { a.required = list(current, justOver) }),
			want: []string{"current"},
		},
		"ours goes when its leaves have expired": {
			bundle: list(replaced, current), a: steady, want: []string{"current"}, changed: true,
		},
		"ours stays while its leaves may live": {
			bundle: list(replaced, current), a: with(func(a *authorities) { a.retention = 21 * day }),
			want: []string{"replaced", "current"},
		},
		"ours stays while this replica serves it": {
			bundle: list(replaced, current), a: with(func(a *authorities) { a.required = list(replaced, current) }),
			want: []string{"replaced", "current"},
		},
		"ours stays right after a Secret was restored": {
			bundle: list(replaced, current), a: with(func(a *authorities) { a.currentSince = now.Add(-time.Minute) }),
			want: []string{"replaced", "current"},
		},
		"ours that is newer than the Secret's stays": {
			bundle: list(fresh, current), a: steady, want: []string{"fresh", "current"},
		},
		"another's stays until it expires": {bundle: list(foreign, current), a: steady, want: []string{"foreign", "current"}},
		"repeats alone are no reason to write": {
			bundle: list(current, current), a: steady, want: []string{"current", "current"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			bundle := encodeBundle(test.bundle)
			if test.raw != "" {
				bundle = []byte(test.raw)
			}
			merged, changed := mergeBundle(bundle, test.a, now)
			var got []string
			for _, c := range parseBundle(merged) {
				got = append(got, names[string(c.Raw)])
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("certificates (-want +got):\n%s", diff)
			}
			if changed != test.changed {
				t.Errorf("changed: got %t, want %t", changed, test.changed)
			}
			if !changed && !bytes.Equal(merged, bundle) {
				t.Error("unchanged, yet other bytes were returned")
			}
			if again, changed := mergeBundle(merged, test.a, now); changed || !bytes.Equal(again, merged) {
				t.Error("merging again changes something")
			}
		})
	}
}

func TestMergeBundleIsBounded(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	var bundle []*x509.Certificate
	for i := range maxBundle {
		bundle = append(bundle, newTestCA(t, fmt.Sprint(i), now.Add(-time.Hour), now.Add(time.Duration(i+1)*time.Hour)).cert)
	}
	added := newTestCA(t, caCommonName, now, now.Add(time.Hour)).cert
	// The one that ends first is required, so the second goes.
	a := authorities{required: []*x509.Certificate{bundle[0], added}, current: added, retention: time.Hour}
	merged, _ := mergeBundle(encodeBundle(bundle), a, now)
	got := parseBundle(merged)
	if len(got) != maxBundle {
		t.Fatalf("got %d certificates, want %d", len(got), maxBundle)
	}
	if !contains(got, bundle[0]) || !contains(got, added) || contains(got, bundle[1]) {
		t.Errorf("kept the required ones: %t, %t; kept the spare one that ends first: %t",
			contains(got, bundle[0]), contains(got, added), contains(got, bundle[1]))
	}
}

package activity

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func newKey(seed byte) (ed25519.PrivateKey, ed25519.PublicKey) {
	private := ed25519.NewKeyFromSeed(slices.Repeat([]byte{seed}, ed25519.SeedSize))
	return private, private.Public().(ed25519.PublicKey)
}

// nonces returns n1, n2 and so on.
func nonces() func() string {
	n := 0
	return func() string { n++; return fmt.Sprint("n", n) }
}

func signed(s *Signer, r Request) http.Header {
	header := http.Header{}
	s.Sign(header, &r)
	return header
}

func TestVerify(t *testing.T) {
	key, public := newKey(1)
	other, _ := newKey(2)
	good := Request{Method: "POST", Path: "/v1/activity", Body: []byte("{}"), Audience: "pod-a", Nonce: "n1"}
	change := func(f func(*Request)) Request { r := good; f(&r); return r }
	for name, tc := range map[string]struct {
		keys   []ed25519.PrivateKey
		signed Request
		alter  func(http.Header)
		want   error
	}{
		"as it should be":       {keys: []ed25519.PrivateKey{key}, signed: good},
		"by a second key":       {keys: []ed25519.PrivateKey{other, key}, signed: good},
		"by no key":             {signed: good, want: ErrUnsigned},
		"by another key":        {keys: []ed25519.PrivateKey{other}, signed: good, want: ErrSignature},
		"another method":        {[]ed25519.PrivateKey{key}, change(func(r *Request) { r.Method = "PUT" }), nil, ErrSignature},
		"another path":          {[]ed25519.PrivateKey{key}, change(func(r *Request) { r.Path = "/v1/snooze" }), nil, ErrSignature},
		"another body":          {[]ed25519.PrivateKey{key}, change(func(r *Request) { r.Body = nil }), nil, ErrSignature},
		"for another Pod":       {[]ed25519.PrivateKey{key}, change(func(r *Request) { r.Audience = "pod-b" }), nil, ErrSignature},
		"an earlier life":       {[]ed25519.PrivateKey{key}, change(func(r *Request) { r.Nonce = "n0" }), nil, ErrNonce},
		"without a nonce":       {[]ed25519.PrivateKey{key}, change(func(r *Request) { r.Nonce = "" }), nil, ErrNonce},
		"no such version":       {[]ed25519.PrivateKey{key}, good, replaced("v1 ", "v2 "), ErrSignature},
		"a sequence that moved": {[]ed25519.PrivateKey{key}, good, replaced(" 1 ", " 2 "), ErrSignature},
		"an instance renamed":   {[]ed25519.PrivateKey{key}, good, replaced("gateway", "gateweg"), ErrSignature},
		"garbage":               {[]ed25519.PrivateKey{key}, good, func(h http.Header) { h.Set(Header, strings.Repeat("x ", 1000)) }, ErrSignature},
		"too many signatures": {[]ed25519.PrivateKey{key}, good, func(h http.Header) {
			h[Header] = append(slices.Repeat([]string{"v1 x x x 1 x"}, maxSignatures), h[Header]...)
		}, ErrSignature},
	} {
		t.Run(name, func(t *testing.T) {
			v := NewVerifier(public, "pod-a", nonces())
			s := NewSigner("gateway")
			s.SetKeys(tc.keys)
			header := signed(s, tc.signed)
			if tc.alter != nil {
				tc.alter(header)
			}
			if err := v.Verify(header, good.Method, good.Path, good.Body); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func replaced(before, after string) func(http.Header) {
	return func(h http.Header) { h.Set(Header, strings.Replace(h.Get(Header), before, after, 1)) }
}

// TestReplays: whatever order requests arrive in, each is accepted once.
func TestReplays(t *testing.T) {
	key, public := newKey(1)
	v := NewVerifier(public, "pod", nonces())
	request := Request{Method: "POST", Path: "/", Audience: "pod", Nonce: "n1"}
	verify := func(h http.Header) error { return v.Verify(h, "POST", "/", nil) }
	var sent []http.Header
	replicas := []*Signer{NewSigner("one"), NewSigner("two")}
	for i := range 3 * maxRecent {
		s := replicas[i%2]
		s.SetKeys([]ed25519.PrivateKey{key})
		sent = append(sent, signed(s, request))
	}
	for i := 0; i+3 < len(sent); i += 4 { // each is overtaken by the one after the next
		for _, h := range []http.Header{sent[i+2], sent[i], sent[i+3], sent[i+1]} {
			if err := verify(h); err != nil {
				t.Fatalf("request %d: %v", i, err)
			}
		}
	}
	for i, h := range sent {
		if err := verify(h); !errors.Is(err, ErrReplayed) {
			t.Fatalf("request %d again: %v", i, err)
		}
	}
	for _, known := range v.instances {
		if len(known.seen) > maxRecent {
			t.Errorf("%d numbers are remembered, more than %d", len(known.seen), maxRecent)
		}
	}
}

// TestManyInstances: starts of the gateway neither fill the memory nor open the door to replays.
func TestManyInstances(t *testing.T) {
	key, public := newKey(1)
	v := NewVerifier(public, "pod", nonces())
	send := func(instance, nonce string) (http.Header, error) {
		s := NewSigner(instance)
		s.SetKeys([]ed25519.PrivateKey{key})
		h := signed(s, Request{Method: "POST", Path: "/", Audience: "pod", Nonce: nonce})
		return h, v.Verify(h, "POST", "/", nil)
	}
	first, err := send("0", "n1")
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxInstances - 1 {
		if _, err := send(fmt.Sprint(i+1), "n1"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := send("last", "n1"); !errors.Is(err, ErrNonce) {
		t.Errorf("one instance more: %v, want a new nonce", err)
	}
	if _, err := send("last", v.Nonce()); err != nil {
		t.Errorf("with the new nonce: %v", err)
	}
	if err := v.Verify(first, "POST", "/", nil); !errors.Is(err, ErrNonce) {
		t.Errorf("the first request again: %v", err)
	}
	if len(v.instances) != 1 {
		t.Errorf("%d instances are remembered", len(v.instances))
	}
}

func TestKeys(t *testing.T) {
	private, public := newKey(3)
	text, err := FormatPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParsePrivateKey(text); err != nil || !got.Equal(private) {
		t.Errorf("private key: %v", err)
	}
	if got, err := ParsePublicKey(FormatPublicKey(public)); err != nil || !got.Equal(public) {
		t.Errorf("public key: %v", err)
	}
	for _, s := range []string{"", "AAAA", "not base64", FormatPublicKey(public) + "AAAA"} {
		if _, err := ParsePublicKey(s); err == nil || !strings.Contains(err.Error(), "accepted are the 32 bytes") {
			t.Errorf("public key %q: %v", s, err)
		}
	}
	for _, s := range []string{"", "x", strings.Replace(string(text), "PRIVATE", "PUBLIC", 2), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		if _, err := ParsePrivateKey([]byte(s)); err == nil || !strings.Contains(err.Error(), "accepted is an Ed25519 key") {
			t.Errorf("private key %q: %v", s, err)
		}
	}
}

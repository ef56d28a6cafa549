package activity

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
)

const (
	// Header carries a signature. There is one header line for each of the sender's keys.
	Header = "Agent-Signature"

	// NonceHeader carries the nonce of the manager that answers.
	NonceHeader = "Agent-Signature-Nonce"

	// version starts every signature, and what is signed.
	version = "v1"
)

// Request is what a signature covers.
type Request struct {
	Method, Path string
	Body         []byte

	// Audience is the UID of the Pod that the request is for.
	Audience string

	// Nonce is the manager's. Empty if the sender does not know it yet; then the manager answers with it.
	Nonce string
}

// text is what is signed. No field but the last can hold a line break: a method and a path have none, and the verifier
// compares audience and nonce with its own.
func (r *Request) text(instance string, sequence uint64) []byte {
	return fmt.Appendf(nil, "agent-lifecycle activity %s\n%s\n%s\n%s\n%s\n%s\n%d\n%x",
		version, r.Method, r.Path, r.Audience, r.Nonce, instance, sequence, sha256.Sum256(r.Body))
}

// Signer signs requests. It is safe for concurrent use.
type Signer struct {
	instance string
	sequence atomic.Uint64
	keys     atomic.Pointer[[]ed25519.PrivateKey]
}

// NewSigner returns a Signer without keys, which signs nothing. The instance names this process among all that use the
// same keys: it must be random, since its sequence numbers begin anew, and hold no space.
func NewSigner(instance string) *Signer { return &Signer{instance: instance} }

// SetKeys replaces the keys, and says whether they are others than before. Each signs every request from now on: during a
// rotation agents hold different public halves.
func (s *Signer) SetKeys(keys []ed25519.PrivateKey) (changed bool) {
	before := s.keys.Swap(&keys)
	return before == nil || !slices.EqualFunc(*before, keys, func(a, b ed25519.PrivateKey) bool { return a.Equal(b) })
}

// Keys returns the number of keys.
func (s *Signer) Keys() int {
	if keys := s.keys.Load(); keys != nil {
		return len(*keys)
	}
	return 0
}

// Sign puts a signature by each key into the header.
func (s *Signer) Sign(header http.Header, r *Request) {
	header.Del(Header)
	keys := s.keys.Load()
	if keys == nil || len(*keys) == 0 {
		return
	}
	sequence := s.sequence.Add(1)
	nonce := r.Nonce
	if nonce == "" {
		nonce = noNonce
	}
	for _, key := range *keys {
		public := key.Public().(ed25519.PublicKey)
		signature := base64.StdEncoding.EncodeToString(ed25519.Sign(key, r.text(s.instance, sequence)))
		header.Add(Header, strings.Join([]string{version, keyID(public), nonce, s.instance, fmt.Sprint(sequence), signature}, " "))
	}
}

// noNonce stands in a signature for a nonce that the sender does not know.
const noNonce = "-"

package activity

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Errors of Verifier.Verify.
var (
	// ErrUnsigned: the request carries no signature.
	ErrUnsigned = errors.New("the request is not signed; accepted is a signature of the gateway in the header " + Header)

	// ErrNonce: the sender did not know this manager's nonce. It signs again with the one of NonceHeader.
	ErrNonce = errors.New("the signature is for another nonce; sign again with the one in the header " + NonceHeader)

	// ErrSignature: the signature is not by this agent's key, or not for this request to this Pod.
	ErrSignature = errors.New("the signature is not by the key in the agent's environment, or for another request or Pod")

	// ErrReplayed: the request was accepted before.
	ErrReplayed = errors.New("the request was accepted before; a sender counts up")
)

const (
	// maxSignatures bounds how many header lines are looked at: one for each key of a rotation.
	maxSignatures = 8

	// maxInstances bounds the memory for senders: each start of a gateway's replica is one.
	maxInstances = 64

	// maxRecent is how many requests of one sender may overtake one another.
	maxRecent = 64

	// maxInstanceLength bounds the name of a sender, in bytes.
	maxInstanceLength = 64
)

// Verifier verifies signatures for one Pod. It is safe for concurrent use.
type Verifier struct {
	key      ed25519.PublicKey
	keyID    string
	audience string
	newNonce func() string

	mu        sync.Mutex
	nonce     string
	instances map[string]*recent
}

// NewVerifier returns a Verifier by a public key for the Pod with the UID audience. newNonce returns a fresh random
// text without spaces.
func NewVerifier(key ed25519.PublicKey, audience string, newNonce func() string) *Verifier {
	return &Verifier{
		key: key, keyID: keyID(key), audience: audience, newNonce: newNonce,
		nonce: newNonce(), instances: map[string]*recent{},
	}
}

// Nonce returns what senders have to sign.
func (v *Verifier) Nonce() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.nonce
}

// Verify verifies the signature of a request in its header; the audience and the nonce are the Verifier's. The error is
// ErrUnsigned, ErrNonce, ErrSignature or ErrReplayed.
func (v *Verifier) Verify(header http.Header, method, path string, body []byte) error {
	values := header.Values(Header)
	if len(values) == 0 {
		return ErrUnsigned
	}
	s, ok := v.find(values)
	if !ok {
		return ErrSignature
	}
	if s.nonce != v.Nonce() {
		return ErrNonce
	}
	r := Request{Method: method, Path: path, Body: body, Audience: v.audience, Nonce: s.nonce}
	if !ed25519.Verify(v.key, r.text(s.instance, s.sequence), s.signature) {
		return ErrSignature
	}
	return v.record(&s)
}

// find returns the signature by the Verifier's key.
func (v *Verifier) find(values []string) (signature, bool) {
	for _, value := range values[:min(len(values), maxSignatures)] {
		if s, ok := parse(value); ok && s.keyID == v.keyID {
			return s, true
		}
	}
	return signature{}, false
}

// record refuses what was accepted before. Only holders of the key get here, so nobody else fills the memory.
func (v *Verifier) record(s *signature) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if s.nonce != v.nonce {
		return ErrNonce
	}
	known := v.instances[s.instance]
	if known == nil {
		if len(v.instances) >= maxInstances {
			// To forget one sender alone would open its requests to a replay. A new nonce makes all earlier ones worthless.
			clear(v.instances)
			v.nonce = v.newNonce()
			return ErrNonce
		}
		known = &recent{}
		v.instances[s.instance] = known
	}
	if !known.add(s.sequence) {
		return ErrReplayed
	}
	return nil
}

// signature is a parsed header line.
type signature struct {
	keyID, nonce, instance string
	sequence               uint64
	signature              []byte
}

func parse(value string) (signature, bool) {
	fields := strings.Split(value, " ")
	if len(fields) != 6 || fields[0] != version || len(fields[3]) > maxInstanceLength {
		return signature{}, false
	}
	sequence, err := strconv.ParseUint(fields[4], 10, 64)
	raw, rawErr := base64.StdEncoding.DecodeString(fields[5])
	if err != nil || rawErr != nil || len(raw) != ed25519.SignatureSize {
		return signature{}, false
	}
	return signature{keyID: fields[1], nonce: fields[2], instance: fields[3], sequence: sequence, signature: raw}, true
}

// recent remembers which sequence numbers of a sender were accepted. A sender's requests travel on several connections,
// so they may overtake one another.
type recent struct {
	floor uint64   // this one and all below count as accepted
	seen  []uint64 // above floor, sorted
}

func (r *recent) add(sequence uint64) bool {
	i, found := slices.BinarySearch(r.seen, sequence)
	if found || sequence <= r.floor {
		return false
	}
	r.seen = slices.Insert(r.seen, i, sequence)
	if len(r.seen) > maxRecent {
		r.floor = r.seen[0]
		r.seen = slices.Delete(r.seen, 0, 1)
	}
	return true
}

package activity

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
)

// pemType is what PKCS#8 keys are called in PEM, by RFC 7468.
const pemType = "PRIVATE KEY"

// FormatPublicKey returns the form of a public key that ParsePublicKey reads: base64 of its 32 bytes.
func FormatPublicKey(key ed25519.PublicKey) string { return base64.StdEncoding.EncodeToString(key) }

// ParsePublicKey reads a public key. The error says what would be accepted.
func ParsePublicKey(s string) (ed25519.PublicKey, error) {
	raw, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%.80q is no public key; accepted are the %d bytes of an Ed25519 public key in base64", s, ed25519.PublicKeySize)
	}
	return raw, nil
}

// FormatPrivateKey returns the form of a private key that ParsePrivateKey reads: PKCS#8 in PEM, as
// "openssl genpkey -algorithm ed25519" writes it.
func FormatPrivateKey(key ed25519.PrivateKey) ([]byte, error) {
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: encoded}), nil
}

// ParsePrivateKey reads a private key. The error says what would be accepted, and shows nothing of the key.
func ParsePrivateKey(text []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != pemType {
		return nil, fmt.Errorf("there is no PEM block of type %q; accepted is an Ed25519 key in PKCS#8", pemType)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the PEM block holds no PKCS#8 key; accepted is an Ed25519 key")
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the key is a %T; accepted is an Ed25519 key", parsed)
	}
	return key, nil
}

// keyID names a public key in signatures, so that a manager finds the one of its key among those of a rotation.
func keyID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:8])
}

package gateway

import (
	"crypto/sha256"
	"encoding/base32"
	"net/url"
	"strings"
)

const (
	// namePrefix makes every name one that a Service may have, which begins with a letter.
	namePrefix = "agent-"

	// maxName leaves room for what a Deployment's Pods are called, "-" ReplicaSet "-" Pod, 17 characters, in the 63 of a
	// host name; and so for "-data", too.
	maxName = 46

	// hashLength is in characters of 5 bits. 100 bits: nobody finds a second id for somebody else's name, and names that
	// fall together by chance are not to be expected in any fleet. Where they did, the annotation on the objects would tell.
	hashLength = 20
)

// lowerBase32 holds nothing that looks like a word separator; its letters and digits fit every kind of name.
var lowerBase32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Name returns the name of a user's Deployment and Service: what is readable of the id, and a hash of all of it. It is a DNS
// label of at most 46 characters, the same for the same id for ever, and another for every other id.
func Name(user string) string {
	sum := sha256.Sum256([]byte(user))
	hash := lowerBase32.EncodeToString(sum[:])[:hashLength]
	readable := slug(user, maxName-len(namePrefix)-1-hashLength)
	if readable == "" {
		return namePrefix + hash
	}
	return namePrefix + readable + "-" + hash
}

// claimName is the one that the policy lets a Deployment mount before it exists.
func claimName(name string) string { return name + "-data" }

// slug keeps letters and digits of ASCII, and one "-" for whatever stands between them.
func slug(s string, longest int) string {
	var b strings.Builder
	gap := false
	for _, r := range s {
		switch {
		case r >= 'A' && r <= 'Z':
			r += 'a' - 'A'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
		default:
			gap = true
			continue
		}
		if gap && b.Len() > 0 {
			if b.Len()+2 > longest {
				break
			}
			b.WriteByte('-')
		}
		gap = false
		if b.Len() == longest {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}

// escapeUser is how a user's id is written into an annotation: ids are any bytes, annotations are text.
func escapeUser(user string) string { return url.PathEscape(user) }

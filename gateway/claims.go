package gateway

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// maxToken is the longest token that is looked at, in bytes. Service account tokens have about 1 KiB.
	maxToken = 16 << 10

	// claimsLeeway is how far this machine's clock may differ from the issuer's.
	claimsLeeway = 5 * time.Minute
)

// checkClaims returns an ErrToken for what cannot be a valid token for the audience, whoever signed it: a service account's token is a
// JWT (RFC 7519) with audience and expiry. It verifies no signature, which only the API server can: who passes it has proved
// nothing, who does not need not be asked about.
func checkClaims(token, audience string, now time.Time) error {
	if len(token) > maxToken {
		return fmt.Errorf("%w: it has %d bytes; accepted are up to %d", ErrToken, len(token), maxToken)
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 || parts[2] == "" {
		return fmt.Errorf("%w: it is no JWT; it must be a service account's token for the audience %q", ErrToken, audience)
	}
	var claims struct {
		Audience audiences `json:"aud"`
		Expiry   float64   `json:"exp"`
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &claims) != nil {
		return fmt.Errorf("%w: its claims cannot be read; it must be a JWT for the audience %q", ErrToken, audience)
	}
	if !slices.Contains(claims.Audience, audience) {
		return fmt.Errorf("%w: it must be one for the audience %q", ErrToken, audience)
	}
	if claims.Expiry == 0 {
		return fmt.Errorf("%w: it says no expiry (claim exp)", ErrToken)
	}
	if float64(now.Add(-claimsLeeway).Unix()) > claims.Expiry {
		return fmt.Errorf("%w: it has expired", ErrToken)
	}
	return nil
}

// audiences is a JWT's claim aud: one string, or an array of them.
type audiences []string

// UnmarshalJSON implements json.Unmarshaler.
func (a *audiences) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*a = audiences{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(a))
}

package lifecycle

import (
	"fmt"
	"slices"
	"strings"
)

// UserType says whom an agent works for. It selects the agent's tier.
type UserType string

// The user types.
const (
	Anonymous  UserType = "anonymous"
	Free       UserType = "free"
	Paid       UserType = "paid"
	Enterprise UserType = "enterprise"
)

// UserTypes returns every user type, in the order of what they are given.
func UserTypes() []UserType {
	return []UserType{Anonymous, Free, Paid, Enterprise}
}

// ParseUserType reads a LabelUserType value. The empty string is not a user type: what its absence means is the
// profile's to say.
func ParseUserType(s string) (UserType, error) {
	if t := UserType(s); slices.Contains(UserTypes(), t) {
		return t, nil
	}
	names := make([]string, 0, len(UserTypes()))
	for _, t := range UserTypes() {
		names = append(names, string(t))
	}
	return "", fmt.Errorf("user type %q is not one of %s", s, strings.Join(names, ", "))
}

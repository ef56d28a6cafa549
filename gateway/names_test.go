package gateway

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
)

func TestName(t *testing.T) {
	// For ever: another scheme would make users' agents strangers to them.
	for _, tt := range []struct{ user, want string }{
		{"alice", "agent-alice-fpmansl7byak6gq7ymzi"},
		{"Alice@Example.COM", "agent-alice-example-com-"},
		{"--a  b--", "agent-a-b-"},
		{"0123456789abcdefg-hij", "agent-0123456789abcdefg-h-"},
		{"0123456789abcdefgh-ij", "agent-0123456789abcdefgh-"},
		{"Ünï Çødé", "agent-n-d-"},
		{"日本", "agent-"},
		{"\x00\xff", "agent-"},
		{"", "agent-4oymiquy7qobjgx36tej"},
	} {
		got := Name(tt.user)
		checkName(t, tt.user, got)
		if !strings.HasPrefix(got, tt.want) || len(got)-len(tt.want) != 0 && len(got)-len(tt.want) != hashLength {
			t.Errorf("Name(%q) = %q, want %s", tt.user, got, tt.want)
		}
	}
}

func TestNamesDiffer(t *testing.T) {
	users := []string{
		"a b", "a-b", "a_b", "A-b", "a--b", "a/b", "a%2Fb", "a b ", " a b", "a\tb", "ab", "a", "a-", "-a", "á", "a\u0301", ".", "..", "",
		strings.Repeat("x", 500), strings.Repeat("x", 501), "agent-a", "a-data",
	}
	for i := range 20_000 {
		users = append(users, fmt.Sprintf("user-%d", i))
	}
	seen := map[string]string{}
	for _, user := range users {
		name := Name(user)
		if other, has := seen[name]; has {
			t.Errorf("%q and %q are both called %q", user, other, name)
		}
		seen[name] = user
	}
}

func FuzzName(f *testing.F) {
	f.Add("alice", "Alice")
	f.Add("a/b", "a%2Fb")
	f.Add("", "-")
	f.Add("0123456789abcdefghij-", "\xff")
	f.Fuzz(func(t *testing.T, one, other string) {
		a, b := Name(one), Name(other)
		checkName(t, one, a)
		if (one == other) != (a == b) {
			t.Errorf("%q is %q and %q is %q", one, a, other, b)
		}
	})
}

func checkName(t *testing.T, user, name string) {
	t.Helper()
	if problems := validation.IsDNS1035Label(name); len(problems) > 0 {
		t.Errorf("Name(%q) = %q: %v", user, name, problems)
	}
	if pod := name + "-0123456789-abcde"; len(pod) > validation.DNS1123LabelMaxLength {
		t.Errorf("Name(%q) = %q leaves no room for the names of Pods", user, name)
	}
	if problems := validation.IsDNS1123Label(claimName(name)); len(problems) > 0 {
		t.Errorf("the claim of %q: %v", user, problems)
	}
}

package lifecycle

import "testing"

func TestParseUserType(t *testing.T) {
	for _, want := range UserTypes() {
		if got, err := ParseUserType(string(want)); err != nil || got != want {
			t.Errorf("ParseUserType(%q) = %q, %v", want, got, err)
		}
	}
	for _, s := range []string{"", "Free", "free ", "premium"} {
		got, err := ParseUserType(s)
		if err == nil {
			t.Errorf("ParseUserType(%q) = %q, want an error", s, got)
			continue
		}
		want := `user type "` + s + `" is not one of anonymous, free, paid, enterprise`
		if err.Error() != want {
			t.Errorf("ParseUserType(%q): %q, want %q", s, err, want)
		}
	}
}

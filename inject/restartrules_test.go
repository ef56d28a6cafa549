package inject

import "testing"

func TestKeepsRestartRules(t *testing.T) {
	for version, want := range map[string]bool{
		"v1.34.9": false, "v1.35.0": true, "v1.36.3": true, "v2.0.0": true, "v1.35.1-gke.100": true, "v1.35.0-alpha.1": true,
	} {
		if got, err := KeepsRestartRules(version); got != want || err != nil {
			t.Errorf("%s: %t, %v, want %t", version, got, err, want)
		}
	}
	if _, err := KeepsRestartRules("latest"); err == nil {
		t.Error("a version that is none is understood")
	}
}

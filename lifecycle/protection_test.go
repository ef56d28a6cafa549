package lifecycle

import (
	"testing"
	"time"
)

func TestProtection(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	of := func(key, value string) map[string]string { return map[string]string{key: value} }
	for name, tc := range map[string]struct {
		labels, annotations map[string]string
		want                string
	}{
		"nothing":                   {nil, of("example.com/do-not-reap", "true"), ""},
		"annotation":                {nil, of(AnnotationDoNotReap, "true"), `do-not-reap is "true"`},
		"empty annotation":          {nil, of(AnnotationDoNotReap, ""), `do-not-reap is ""`},
		"annotation false":          {nil, of(AnnotationDoNotReap, "false"), ""},
		"label":                     {of(AnnotationDoNotReap, "true"), nil, `label do-not-reap is "true"`},
		"empty label":               {of(AnnotationDoNotReap, ""), nil, `label do-not-reap is ""`},
		"label false":               {of(AnnotationDoNotReap, "false"), nil, ""},
		"label, annotation false":   {of(AnnotationDoNotReap, "true"), of(AnnotationDoNotReap, "false"), `label do-not-reap is "true"`},
		"label false, annotation":   {of(AnnotationDoNotReap, "false"), of(AnnotationDoNotReap, "yes"), `do-not-reap is "yes"`},
		"until later":               {nil, of(AnnotationDoNotReapUntil, "2026-01-03T00:00:00Z"), "do-not-reap-until is 2026-01-03T00:00:00Z"},
		"until now":                 {nil, of(AnnotationDoNotReapUntil, "2026-01-02T12:00:00Z"), ""},
		"until another zone's noon": {nil, of(AnnotationDoNotReapUntil, "2026-01-02T12:00:00-01:00"), "do-not-reap-until is 2026-01-02T12:00:00-01:00"},
		"until who knows when": {
			nil, of(AnnotationDoNotReapUntil, "christmas"),
			`do-not-reap-until is "christmas", which is no time such as 2026-01-02T15:04:05Z`,
		},
		// A label's value can hold no colon, and so no time.
		"until a day, by label": {
			of(AnnotationDoNotReapUntil, "2025-01-01"), nil,
			`label do-not-reap-until is "2025-01-01", which is no time such as 2026-01-02T15:04:05Z`,
		},
		"not protected, but until later": {
			nil, map[string]string{AnnotationDoNotReap: "false", AnnotationDoNotReapUntil: "2026-01-03T00:00:00Z"},
			"do-not-reap-until is 2026-01-03T00:00:00Z",
		},
	} {
		if got := Protection(ProtectionMarks(tc.labels, tc.annotations), now); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

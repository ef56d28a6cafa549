package webhook

import "unicode/utf8"

// bounded cuts s to at most limit bytes, between runes, and shows that it did.
func bounded(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	const ellipsis = "…"
	end := limit - len(ellipsis)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + ellipsis
}

// Package docs_test holds the pages to the code. Commands, flags, metrics and links are held by tools/check-docs.
package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	// fenced is a block of code, which other tests run or compare.
	fenced = regexp.MustCompile("(?s)```.*?```")

	// span is code between backticks.
	span = regexp.MustCompile("`([^`]+)`")

	// variable is the name of an environment variable, header that of an HTTP header; each may be shown with a value.
	variable = regexp.MustCompile(`^([A-Z][A-Z0-9]*_[A-Z0-9_]+)(?:=.*)?$`)
	header   = regexp.MustCompile(`^([A-Z][A-Za-z]*(?:-[A-Z][A-Za-z]*)+)(?:: .*)?$`)

	// blank is what differs from one message to the next: an ellipsis, a word in capitals that stands for a name, a
	// number with its unit.
	blank = regexp.MustCompile(`…|[A-Z]{3,}|\d+[a-z]*|"`)
)

// commands begin a span that is no message.
var commands = []string{"agent-gateway", "curl", "go", "kubectl", "lifecycle-manager", "lifecycle-sidecar", "lifecycle-webhook", "make", "trigger"}

// ofOthers are what Kubernetes, NATS and Go's net package say.
var ofOthers = []string{
	"Nats-Msg-Id", "Some content in the namespace has finalizers remaining", "failed calling webhook", "context deadline exceeded",
}

// composed are messages of which the code has the kind in another place than the rest.
var composed = []string{"kept alive by trigger", "kept alive by lease"}

// TestQuotesAreInTheCode fails where a page quotes a message, an environment variable or a header that nothing here
// says or reads.
func TestQuotesAreInTheCode(t *testing.T) {
	code := source(t)
	quotes := 0
	for _, page := range []string{"agents.md", "events.md", "gateway.md", "operations.md", "security.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range span.FindAllStringSubmatch(fenced.ReplaceAllString(string(text), ""), -1) {
			for _, quote := range quoted(strings.Join(strings.Fields(match[1]), " ")) {
				quotes++
				if !slices.Contains(ofOthers, quote) && !slices.Contains(composed, quote) && !strings.Contains(code, quote) {
					t.Errorf("%s quotes %q, of which %q is nowhere in the code", page, match[1], quote)
				}
			}
		}
	}
	if quotes < 30 {
		t.Errorf("only %d quotes were found: this test looks for something else than the pages have", quotes)
	}
}

// quoted returns what of a span the code must have: a name, or the fixed parts of a message, which has three words
// and more.
func quoted(code string) []string {
	for _, name := range []*regexp.Regexp{variable, header} {
		if match := name.FindStringSubmatch(code); match != nil {
			return match[1:]
		}
	}
	words := strings.Fields(code)
	if len(words) < 3 || slices.Contains(commands, words[0]) {
		return nil
	}
	var parts []string
	for _, part := range blank.Split(code, -1) {
		if part = strings.Trim(part, " :,."); len(part) > 9 {
			parts = append(parts, part)
		}
	}
	return parts
}

// source is what this repository is built of, without tests: Go, Python and manifests. Strings that are written in
// several parts are one.
func source(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "docs" || len(d.Name()) > 2 && strings.HasPrefix(d.Name(), ".")):
			return filepath.SkipDir
		case d.IsDir(), strings.HasSuffix(path, "_test.go"), !slices.Contains([]string{".go", ".py", ".yaml", ".txt"}, filepath.Ext(path)):
			return nil
		}
		text, err := os.ReadFile(path)
		all.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	joined := regexp.MustCompile(`"\s*\+\s*"`).ReplaceAllString(all.String(), "")
	return strings.ReplaceAll(joined, `\"`, `"`)
}

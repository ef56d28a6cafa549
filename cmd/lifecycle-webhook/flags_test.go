package main

import (
	"bytes"
	"runtime"
	"strings"
	"testing"
)

func TestCommandLine(t *testing.T) {
	tests := []struct {
		args           string
		code           int
		stdout, stderr string
	}{
		{"", exitUsage, "", "Usage:"},
		{"help", exitOK, "lifecycle-webhook serve --policy FILE", ""},
		{"--help", exitOK, "Usage:", ""},
		{"version", exitOK, runtime.Version(), ""},
		{"version please", exitUsage, "", "takes no arguments"},
		{"sever", exitUsage, "", `"sever" is no command; there are serve, reap, version and help`},
		{"serve --help", exitOK, "-drain-delay", ""},
		{"serve", exitUsage, "", "--policy is required"},
		{"serve --polcy x", exitUsage, "", "flag provided but not defined: -polcy"},
		{"serve --policy x y", exitUsage, "", `unexpected arguments ["y"]`},
		{"serve --policy x --certs magic", exitUsage, "", "there are self-managed and mounted"},
		{"serve --policy x --certs mounted", exitUsage, "", "requires --tls-cert and --tls-key"},
		{"serve --policy x --tls-cert c --tls-key k", exitUsage, "", "are for --certs mounted"},
		{"serve --policy x --certs mounted --tls-cert c --tls-key k --dns-name n", exitUsage, "", "--dns-name is for --certs self-managed"},
		{"serve --policy x --drain-delay -1s", exitUsage, "", "--drain-delay -1s: must not be negative"},
		{"serve --policy x --drain-delay soon", exitUsage, "", "-drain-delay"},
		{"serve --policy x --max-body 0", exitUsage, "", "--max-body 0: must be positive"},
		{"serve --policy x --max-in-flight -1", exitUsage, "", "--max-in-flight -1: must be positive"},
		{"serve --policy x --log-level loud", exitUsage, "", "-log-level"},
		{"serve --policy x --log-format xml", exitUsage, "", "there are json and text"},
		{"serve --policy x --service=", exitUsage, "", "--service must not be empty"},
		{"serve --policy x --kubeconfig /does/not/exist", exitError, "", "/does/not/exist"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := run(strings.Fields(tt.args), &stdout, &stderr); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			for what, is := range map[string][2]string{"stdout": {stdout.String(), tt.stdout}, "stderr": {stderr.String(), tt.stderr}} {
				if got, want := is[0], is[1]; !strings.Contains(got, want) || (want == "") != (got == "") {
					t.Errorf("%s %q, want %q", what, got, want)
				}
			}
		})
	}
}

// All that is wrong is said at once.
func TestEveryMistakeIsNamed(t *testing.T) {
	var stdout, stderr bytes.Buffer
	run([]string{"serve", "--max-body=0", "--certs=magic", "extra"}, &stdout, &stderr)
	for _, want := range []string{"--policy is required", "--max-body", "--certs", "extra"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("%q is not said:\n%s", want, stderr.String())
		}
	}
}

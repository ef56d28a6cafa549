package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestAuditLog(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.log")
	log := &auditLog{file: file}
	line := func(user, verb, resource, stage, uri string, code int) string {
		return fmt.Sprintf(`{"stage":%q,"verb":%q,"requestURI":%q,"user":{"username":%q},"objectRef":{"resource":%q},"responseStatus":{"code":%d},"stageTimestamp":"2026-01-02T03:04:05.000000Z"}`,
			stage, verb, uri, user, resource, code) + "\n"
	}
	write := func(text string) {
		f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	check := func(want string, wantDeleted, wantLeases int) {
		t.Helper()
		c, err := log.since("us")
		if err != nil {
			t.Fatal(err)
		}
		if c.String() != want || c.deletedNamespaces != wantDeleted || c.leases != wantLeases {
			t.Errorf("got %s, %d namespaces deleted, %d leases; want %s, %d, %d", c, c.deletedNamespaces, c.leases, want, wantDeleted, wantLeases)
		}
	}

	check("none", 0, 0) // there is no file yet
	const begun, done = "ResponseStarted", "ResponseComplete"
	cut := line("us", "get", "pods", done, "", 200)
	write(line("us", "watch", "pods", begun, "/api/v1/pods?sendInitialEvents=true", 200) +
		line("us", "watch", "pods", done, "/api/v1/pods?sendInitialEvents=true", 200) +
		line("them", "list", "pods", done, "", 200) +
		line("us", "update", "leases", done, "", 200) +
		line("us", "delete", "namespaces", done, "", 200) +
		line("us", "delete", "namespaces", done, "", 409) + cut[:20])
	check("2 delete, 1 watch", 1, 1)
	write(cut[20:] + line("us", "list", "pods", done, "", 200))
	check("1 get, 1 list", 0, 0)
}

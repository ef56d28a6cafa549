package main

import (
	"bytes"
	"crypto/ed25519"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dexorder/agent-lifecycle/activity"
)

// TestActivityKeys: the keys are followed, and unreadable ones take nothing away.
func TestActivityKeys(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, seed byte) {
		t.Helper()
		text := []byte("broken")
		if seed > 0 {
			var err error
			if text, err = activity.FormatPrivateKey(ed25519.NewKeyFromSeed(slices.Repeat([]byte{seed}, ed25519.SeedSize))); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(name string) {
		t.Helper()
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	k := newActivityKeys(dir, "replica", prometheus.NewRegistry(), slog.New(slog.NewTextHandler(&log, nil)))
	expect := func(what string, keys int, logged string) {
		t.Helper()
		k.read()
		if got := k.signer.Keys(); got != keys {
			t.Errorf("%s: %d keys, want %d", what, got, keys)
		}
		if !strings.Contains(log.String(), logged) {
			t.Errorf("%s: the log lacks %q:\n%s", what, logged, log.String())
		}
		log.Reset()
		k.read()
		if log.Len() > 0 {
			t.Errorf("%s: the same is logged again: %s", what, log.String())
		}
	}
	expect("an empty directory", 0, "Activity is not signed: there is no key")
	write("event-ids.key", 9)
	write("activity.pub", 9)
	write("activity.key", 1)
	expect("the key", 1, "Activity is signed")
	write("activity-2027.key", 2)
	expect("a second key", 2, "Activity is signed")
	remove("activity.key")
	expect("the first one removed", 1, "Activity is signed")
	write("activity.key", 0)
	expect("one that is broken", 1, "activity.key: there is no PEM block")
	remove("activity.key")
	remove("activity-2027.key")
	expect("a Secret that is gone", 1, "Activity is signed")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	expect("a directory that is gone", 1, "")
}

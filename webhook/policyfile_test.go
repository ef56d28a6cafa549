package webhook

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// policyNaming is the example policy with one more namespace covered, so that files differ in what they mean.
func policyNaming(namespace string) []byte {
	return bytes.ReplaceAll(v1alpha1.Example(), []byte("- dexorder-agents\n"), []byte("- dexorder-agents\n        - "+namespace+"\n"))
}

// policyDir holds a policy file as the kubelet mounts a ConfigMap: the file is a symlink through the symlink ..data to a
// directory with a name of its own, and ..data is replaced by renaming another one over it.
type policyDir struct {
	path     string
	versions int
}

func (d *policyDir) file() string { return filepath.Join(d.path, "policy.yaml") }

func (d *policyDir) write(t *testing.T, data []byte) {
	t.Helper()
	d.versions++
	version := "..version-" + strings.Repeat("i", d.versions)
	must(t, os.Mkdir(filepath.Join(d.path, version), 0o700))
	must(t, os.WriteFile(filepath.Join(d.path, version, "policy.yaml"), data, 0o600))
	must(t, os.Symlink(version, filepath.Join(d.path, "..data_tmp")))
	must(t, os.Rename(filepath.Join(d.path, "..data_tmp"), filepath.Join(d.path, "..data")))
	if d.versions == 1 {
		must(t, os.Symlink(filepath.Join("..data", "policy.yaml"), d.file()))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestReload follows a ConfigMap through good and bad versions.
func TestReload(t *testing.T) {
	dir := &policyDir{path: t.TempDir()}
	dir.write(t, v1alpha1.Example())
	registry := prometheus.NewRegistry()
	f, err := LoadPolicyFile(dir.file(), NewMetrics(registry, "test"), slog.New(slog.DiscardHandler))
	must(t, err)
	covered := make(chan []v1alpha1.Namespaces, 10)
	f.OnChange = func(c []v1alpha1.Namespaces) { covered <- c }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	first := f.Active()

	dir.write(t, policyNaming("second"))
	waitUntil(t, "the second version is in force", func() bool { return f.Active().Profile("second") != "" })
	if got := newScope(<-covered); !got.covers("second") {
		t.Errorf("OnChange was told of %s", got)
	}
	if first.Profile("second") != "" {
		t.Error("the policy that a request began with changed under it")
	}

	dir.write(t, []byte("kind: LifecyclePolicy\nunknown: true\nprofiles: 7\n"))
	waitUntil(t, "the third version is rejected", func() bool { return f.Rejected() != nil })
	if f.Active().Profile("second") == "" {
		t.Error("a bad version drove the good one out")
	}
	if n := metric(t, registry, `agent_lifecycle_policy_reloads_total{result="failed"}`); n != "1" {
		t.Errorf("%q failed reloads were counted, want 1", n)
	}
	f.Reload()
	if n := metric(t, registry, `agent_lifecycle_policy_reloads_total{result="failed"}`); n != "1" {
		t.Errorf("the same bad file was counted again: %q", n)
	}

	dir.write(t, policyNaming("second"))
	waitUntil(t, "what is in force is also in the file", func() bool { return f.Rejected() == nil })

	must(t, os.Remove(filepath.Join(dir.path, "..data")))
	waitUntil(t, "the file's absence is noticed", func() bool { return f.Rejected() != nil })
	dir.write(t, policyNaming("last"))
	waitUntil(t, "the last version is in force", func() bool { return f.Active().Profile("last") != "" && f.Rejected() == nil })
	series := `agent_lifecycle_policy_info{hash="` + v1alpha1.Hash(policyNaming("last")) + `"}`
	if n := metric(t, registry, series); n != "1" || f.Active().Hash != v1alpha1.Hash(policyNaming("last")) {
		t.Errorf("%s is %q", series, n)
	}
	cancel()
	must(t, <-done)
}

// A server does not start without a policy, and says everything that is wrong with it.
func TestLoadPolicyFileFails(t *testing.T) {
	tests := []struct {
		name  string
		data  []byte
		wants []string
	}{
		{"absent", nil, []string{"no such file"}},
		{"empty", []byte{}, []string{"empty"}},
		{"too large", bytes.Repeat([]byte("#"), v1alpha1.MaxSize+1), []string{"larger than"}},
		{"two errors", append(v1alpha1.Example(), "unknownOne: 1\nunknownTwo: 2\n"...), []string{"unknownOne", "unknownTwo"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "policy.yaml")
			if tt.data != nil {
				must(t, os.WriteFile(path, tt.data, 0o600))
			}
			_, err := LoadPolicyFile(path, NewMetrics(prometheus.NewRegistry(), "test"), slog.New(slog.DiscardHandler))
			if err == nil {
				t.Fatal("it was loaded")
			}
			for _, want := range tt.wants {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

package idle

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// held lists what a manager is kept by, as kind, owner and id.
func held(m *Manager) []string {
	var list []string
	for _, k := range m.Status().KeptAliveBy {
		if k.Kind == "trigger" || k.Kind == "lease" {
			list = append(list, k.Kind+" "+k.Owner+"/"+k.ID)
		}
	}
	return list
}

// No call of one owner takes away what another one holds, also under the same id.
func TestOwners(t *testing.T) {
	m := New(testConfig())
	c, _ := onSocket(t, m)
	ctx := t.Context()
	script, worker := c, c.ForOwner("worker")
	for _, step := range []struct {
		name string
		call func() error
		want []string
	}{
		{"a script adds", func() error { return script.AddTrigger(ctx, "inbox", "waits") }, []string{"trigger /inbox"}},
		{"a process adds the same", func() error { return worker.AddTrigger(ctx, "inbox", "") }, []string{"trigger /inbox", "trigger worker/inbox"}},
		{"the process replaces its own", func() error { return worker.UpdateTriggers(ctx, "job") }, []string{"trigger /inbox", "trigger worker/job"}},
		{"the process has none", func() error { return worker.UpdateTriggers(ctx) }, []string{"trigger /inbox"}},
		{"the process removes what is not its own", func() error { return worker.RemoveTrigger(ctx, "inbox") }, []string{"trigger /inbox"}},
		{"both lease", func() error {
			_, err := script.Lease(ctx, "report", time.Hour)
			_, other := worker.Lease(ctx, "report", time.Hour)
			return errors.Join(err, other)
		}, []string{"trigger /inbox", "lease /report", "lease worker/report"}},
		{"one lease ends", func() error { return worker.RemoveTrigger(ctx, "report") }, []string{"trigger /inbox", "lease /report"}},
		{"the process adds again", func() error { return worker.AddTrigger(ctx, "mail", "") },
			[]string{"trigger /inbox", "trigger worker/mail", "lease /report"}},
		{"a client that names no owner replaces those of no owner", func() error { return script.UpdateTriggers(ctx, "cron") },
			[]string{"trigger /cron", "trigger worker/mail", "lease /report"}},
	} {
		must(t, step.call())
		got := held(m)
		slices.Sort(got)
		slices.Sort(step.want)
		if !equal(got, step.want) {
			t.Fatalf("%s: held are %q, want %q", step.name, got, step.want)
		}
	}
	if err := c.ForOwner("with space").AddTrigger(ctx, "a", ""); err == nil || !strings.Contains(err.Error(), `owner: "with space" is not accepted`) {
		t.Errorf("an owner that is no name: %v", err)
	}
}

// A refused update leaves the owner what it has.
func TestRefusedUpdateTakesNothing(t *testing.T) {
	m := New(testConfig())
	must(t, m.Owner("a").AddTrigger("x", ""))
	for i := range maxKeeps - 1 {
		must(t, m.Owner("b").AddTrigger(strings.Repeat("i", i%200+1)+strings.Repeat("j", i/200), ""))
	}
	if err := m.Owner("a").UpdateTriggers("y", "z"); !errors.Is(err, ErrTooMany) {
		t.Errorf("got %v, want ErrTooMany", err)
	}
	if !slices.Contains(held(m), "trigger a/x") {
		t.Error("the refused update has taken the trigger away")
	}
	must(t, m.Owner("a").UpdateTriggers("y"))
}

// A client that has an owner works with a manager that knows none, and takes nothing away from others there.
func TestOwnersWithOlderManager(t *testing.T) {
	m := New(testConfig())
	mux, current := http.NewServeMux(), Handler(m)
	for _, pattern := range []string{"PUT /v1/triggers", "PUT /v1/triggers/{id}", "DELETE /v1/triggers/{id}", "POST /v1/leases"} {
		mux.Handle(pattern, current)
	}
	socket := filepath.Join(t.TempDir(), "s.sock")
	listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	must(t, err)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })

	ctx := context.Background()
	c := NewClient(socket)
	worker := c.ForOwner("worker")
	must(t, c.AddTrigger(ctx, "inbox", ""))
	must(t, worker.AddTrigger(ctx, "inbox", ""))
	_, err = worker.Lease(ctx, "report", time.Minute)
	must(t, err)
	if got, want := m.Triggers(), []string{"inbox", "worker:inbox", "worker:report"}; !equal(got, want) {
		t.Errorf("triggers %q, want %q", got, want)
	}
	if err := worker.UpdateTriggers(ctx, "job"); !errors.Is(err, ErrNoOwners) {
		t.Errorf("an update: %v, want ErrNoOwners", err)
	}
	must(t, worker.RemoveTrigger(ctx, "inbox"))
	must(t, worker.RemoveTrigger(ctx, "report"))
	if got := m.Triggers(); !equal(got, []string{"inbox"}) {
		t.Errorf("triggers %q, want inbox", got)
	}
}

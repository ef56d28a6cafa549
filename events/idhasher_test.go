package events

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/dexorder/agent-lifecycle/internal/natsserver"
)

// A stranger who may publish on the events' subjects sends what it can compute first: the id that follows from what
// happens.
func TestEventCannotBeSuppressed(t *testing.T) {
	s := natsserver.StartForTest(t, natsserver.Options{})
	f := newFixture(t, s.URL(), nil)
	js := consumer(t, s)
	if _, err := js.CreateStream(t.Context(), f.options.Config.streamConfig()); err != nil {
		t.Fatal(err)
	}
	deleted := Agent("/test", AgentDeleted, AgentData{Namespace: "dexorder-agents", Deployment: "a", UID: "u1"}, start)
	if _, err := js.Publish(t.Context(), "genbrain.events.agent.deleted", []byte("forged"), jetstream.WithMsgID(deleted.ID)); err != nil {
		t.Fatal(err)
	}
	f.start()
	f.Publish(deleted)
	f.published(1)
	if got, want := storedIDs(t, js), []string{deleted.ID, published(deleted.ID)}; !slices.Equal(got, want) {
		t.Errorf("the stream has %q, want the forged one and the real one: %q", got, want)
	}
}

// Replicas that share the key publish one event, and those with different keys two.
func TestReplicasShareTheKey(t *testing.T) {
	s := natsserver.StartForTest(t, natsserver.Options{})
	for n, key := range []string{testKey, testKey, "another key of sixteen bytes"} {
		file := write(t, "event-ids.key", key)
		replica := newFixture(t, s.URL(), func(o *Options) { o.Config.EventIDKeyFile = file }).start()
		replica.Publish(event(1))
		replica.published(1)
		replica.stop()
		if got, want := len(stored(t, consumer(t, s))), []int{1, 1, 2}[n]; got != want {
			t.Errorf("after replica %d the stream has %d events, want %d", n+1, got, want)
		}
	}
}

// The kubelet fills an optional volume some time after the Secret was made.
func TestEventIDKeyComesLater(t *testing.T) {
	s := natsserver.StartForTest(t, natsserver.Options{})
	file := filepath.Join(t.TempDir(), "event-ids.key")
	f := newFixture(t, s.URL(), func(o *Options) { o.Config.EventIDKeyFile = file }).start()
	const warning = "There is no key of event ids"
	for n := range 3 {
		f.Publish(event(n))
		f.published(n + 1)
		f.now.Advance(eventIDKeyInterval)
	}
	if got := f.log.lines(warning); len(got) != 1 || !strings.Contains(got[0], file) {
		t.Errorf("%d warnings, want 1 that names %s: %q", len(got), file, got)
	}
	if got := testutil.ToFloat64(f.options.Metrics.keyed); got != 0 {
		t.Errorf("the metric says %v without a key", got)
	}
	replaceFile(t, file, testKey)
	f.Publish(event(3))
	f.published(4)
	if got := testutil.ToFloat64(f.options.Metrics.keyed); got != 1 {
		t.Errorf("the metric says %v with a key", got)
	}
	want := append([]string{event(0).ID, event(1).ID, event(2).ID}, eventIDs(3, 4)...)
	if got := storedIDs(t, consumer(t, s)); !slices.Equal(got, want) {
		t.Errorf("the stream has %q, want %q", got, want)
	}
}

func TestNoEventIDKeyIsConfigured(t *testing.T) {
	s := natsserver.StartForTest(t, natsserver.Options{})
	f := newFixture(t, s.URL(), func(o *Options) { o.Config.EventIDKeyFile = "" }).start()
	f.Publish(event(0))
	f.Publish(event(1))
	f.published(2)
	if got, want := storedIDs(t, consumer(t, s)), []string{event(0).ID, event(1).ID}; !slices.Equal(got, want) {
		t.Errorf("the stream has %q, want %q", got, want)
	}
	if got := f.log.lines("--event-id-key"); len(got) != 1 {
		t.Errorf("%d warnings, want 1: %q", len(got), got)
	}
}

// A key that cannot be one is a mistake: publishing without one would hide it. Events wait until the file is repaired.
func TestBadEventIDKey(t *testing.T) {
	for name, tt := range map[string]struct{ content, want string }{
		"empty":    {"", "has 0 bytes; accepted are 16 to 4096 random bytes"},
		"short":    {"fifteen bytes--", "has 15 bytes; accepted are 16 to 4096 random bytes"},
		"too long": {strings.Repeat("x", 4097), "has more than 4096 bytes; accepted are 16 to 4096 random bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			s := natsserver.StartForTest(t, natsserver.Options{})
			file := write(t, "event-ids.key", tt.content)
			f := newFixture(t, s.URL(), func(o *Options) { o.Config.EventIDKeyFile = file }).start()
			f.Publish(event(0))
			eventually(t, tt.want, func() bool { return len(f.log.lines(file+": "+tt.want)) > 0 })
			if got := f.buffer.depth(); got != 1 {
				t.Errorf("%d events wait, want 1", got)
			}
			replaceFile(t, file, testKey)
			f.now.Advance(eventIDKeyInterval)
			f.published(1)
			if got := storedIDs(t, consumer(t, s)); !slices.Equal(got, eventIDs(0, 1)) {
				t.Errorf("the stream has %q", got)
			}
			if got := f.log.lines(troubleIDKey); len(got) != 1 {
				t.Errorf("%d warnings, want 1: %q", len(got), got)
			}
		})
	}
}

func TestEventIDKeyIsReplaced(t *testing.T) {
	s := natsserver.StartForTest(t, natsserver.Options{})
	file := write(t, "event-ids.key", "another key of sixteen bytes")
	f := newFixture(t, s.URL(), func(o *Options) { o.Config.EventIDKeyFile = file }).start()
	publish := func(n int) {
		f.Publish(event(n))
		f.published(n + 1)
		f.now.Advance(eventIDKeyInterval)
	}
	publish(0)
	replaceFile(t, file, testKey)
	publish(1)
	// A file that gives no key any more changes nothing.
	for n, spoil := range []func() error{
		func() error { return os.WriteFile(file, nil, 0o600) },
		func() error { return os.Remove(file) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		publish(2 + 2*n)
		publish(3 + 2*n)
	}
	if got := storedIDs(t, consumer(t, s)); !slices.Equal(got[1:], eventIDs(1, 6)) {
		t.Errorf("the stream has %q", got)
	}
	if got := f.log.lines("the last one stays in use"); len(got) != 2 {
		t.Errorf("%d warnings, want one of the empty file and one of the absent one: %q", len(got), got)
	}
}

// A repeat of what may have arrived must have the same id, though the key has come and the connection has gone between
// the attempts.
func TestRepeatKeepsItsID(t *testing.T) {
	dir := t.TempDir()
	s := natsserver.StartForTest(t, natsserver.Options{Dir: dir})
	file := filepath.Join(t.TempDir(), "event-ids.key")
	f := newFixture(t, s.URL(), func(o *Options) { o.Config.EventIDKeyFile, o.Config.CreateStream = file, false }).start()
	f.Publish(event(0))
	eventually(t, "an attempt", func() bool { return len(f.log.lines(troubleUntaken)) > 0 })
	replaceFile(t, file, testKey)
	f.now.Advance(eventIDKeyInterval)
	f.Publish(event(1))
	s.Stop()
	js := consumer(t, natsserver.StartForTest(t, natsserver.Options{Dir: dir, Port: s.Port()}))
	if _, err := js.CreateStream(t.Context(), f.options.Config.streamConfig()); err != nil {
		t.Fatal(err)
	}
	f.published(2)
	if got, want := storedIDs(t, js), append([]string{event(0).ID}, eventIDs(1, 2)...); !slices.Equal(got, want) {
		t.Errorf("the stream has %q, want %q", got, want)
	}
}

// replaceFile is how the kubelet replaces one: a reader never sees half of it.
func replaceFile(t *testing.T, file, content string) {
	t.Helper()
	if err := os.Rename(write(t, "new", content), file); err != nil {
		t.Fatal(err)
	}
}

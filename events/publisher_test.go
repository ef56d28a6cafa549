package events

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/dexorder/agent-lifecycle/internal/natsserver"
)

func TestPublish(t *testing.T) {
	s := natsserver.StartForTest(t, natsserver.Options{})
	f := newFixture(t, s.URL(), nil).start()
	f.Publish(Namespace("/test", NamespaceCreated, NamespaceData{Namespace: "agent-ceo", UID: "u1", Org: "acme"}, start))
	f.published(1)

	messages := stored(t, consumer(t, s))
	if len(messages) != 1 {
		t.Fatalf("the stream has %d messages, want 1", len(messages))
	}
	m := messages[0]
	if want := "genbrain.events.namespace.created"; m.Subject != want {
		t.Errorf("subject %q, want %q", m.Subject, want)
	}
	if got, want := m.Header.Get(jetstream.MsgIDHeader), published("namespace.created/u1"); got != want {
		t.Errorf("message id %q, want %q", got, want)
	}
	if got := m.Header.Get("content-type"); got != ContentType {
		t.Errorf("content-type %q, want %q", got, ContentType)
	}
	const want = `{"specversion":"1.0","id":"W2F_d9FOpLPvIvU6JYIfRjws_z0FUGnSm3Ktyjvddbw","source":"/test","type":"namespace.created",` +
		`"subject":"namespaces/agent-ceo","time":"2026-01-02T03:04:05Z","datacontenttype":"application/json",` +
		`"data":{"namespace":"agent-ceo","uid":"u1","org":"acme"}}`
	if string(m.Data) != want {
		t.Errorf("published\n%s, want\n%s", m.Data, want)
	}
	if got := testutil.ToFloat64(f.options.Metrics.connected); got != 1 {
		t.Errorf("connected is %v, want 1", got)
	}
}

func TestRepeatIsOneEvent(t *testing.T) {
	s := natsserver.StartForTest(t, natsserver.Options{})
	replica := newFixture(t, s.URL(), nil).start()
	for n := range 2 {
		replica.Publish(event(1))
		replica.published(n + 1)
	}
	other := newFixture(t, s.URL(), nil)
	for range 3 {
		other.Publish(event(1))
	}
	if got := other.buffer.depth(); got != 1 {
		t.Errorf("%d wait, want 1: the others are the same event", got)
	}
	other.start()
	other.published(1)
	if got := storedIDs(t, consumer(t, s)); !slices.Equal(got, ids(event(1))) {
		t.Errorf("the stream has %q, want one event", got)
	}
}

func TestInvalidEventIsDropped(t *testing.T) {
	f := newFixture(t, "nats://127.0.0.1:4222", nil)
	for _, change := range []func(*Event){
		func(e *Event) { e.ID = "" },
		func(e *Event) { e.Source = "" },
		func(e *Event) { e.Type = "" },
		func(e *Event) { e.Type = "namespace.>" },
		func(e *Event) { e.Time = time.Time{} },
		func(e *Event) { e.Data = func() {} },
	} {
		e := event(1)
		change(&e)
		f.Publish(e)
	}
	if got := f.dropped(droppedInvalid); got != 6 {
		t.Errorf("%v dropped as invalid, want 6", got)
	}
	if got := f.buffer.depth(); got != 0 {
		t.Errorf("%d wait, want 0", got)
	}
}

// An hour is as many attempts as fit into it.
func TestNATSAwayForAnHour(t *testing.T) {
	dir := t.TempDir()
	s := natsserver.StartForTest(t, natsserver.Options{Dir: dir})
	f := newFixture(t, s.URL(), nil)
	f.pace.retryMost = 2 * time.Millisecond
	f.start()
	const before, total = 10, 3000
	for n := range before {
		f.Publish(event(n))
	}
	f.published(before)

	s.Stop()
	eventually(t, "disconnected", func() bool { return testutil.ToFloat64(f.options.Metrics.connected) == 0 })
	eventually(t, "trouble", func() bool { return len(f.log.lines("level=WARN")) == 1 })
	const tries = 120
	var tried atomic.Int64
	door, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port())))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := door.Accept()
			if err != nil {
				return
			}
			tried.Add(1)
			conn.Close()
		}
	}()
	for n := before; n < total; n++ {
		f.Publish(event(n))
	}
	eventually(t, "an hour of attempts", func() bool { return tried.Load() >= tries })
	door.Close()
	f.now.Advance(time.Hour)
	if got := testutil.ToFloat64(f.options.Metrics.buffered); got != total-before {
		t.Errorf("%v wait, want %d", got, total-before)
	}

	again := natsserver.StartForTest(t, natsserver.Options{Dir: dir, Port: s.Port()})
	f.published(total)
	if got := storedIDs(t, consumer(t, again)); !slices.Equal(got, eventIDs(0, total)) {
		t.Errorf("the stream has %d events, want %d in the order in which they were published", len(got), total)
	}
	if got := f.log.lines("level=WARN"); len(got) != 1 {
		t.Errorf("%d warnings for one outage, want 1:\n%s", len(got), strings.Join(got, ""))
	}
	if got := f.log.lines("after=1h0m0s"); len(got) != 1 {
		t.Error("the log does not say that NATS was away for an hour")
	}
	if got := testutil.ToFloat64(f.options.Metrics.buffered); got != 0 {
		t.Errorf("%v wait, want 0", got)
	}
}

func TestUnreachableAtStart(t *testing.T) {
	dir := t.TempDir()
	s := natsserver.StartForTest(t, natsserver.Options{Dir: dir})
	s.Stop()
	f := newFixture(t, s.URL(), nil)
	f.Publish(event(0))
	f.start()
	f.Publish(event(1))
	eventually(t, "trouble", func() bool { return len(f.log.lines(troubleAway)) > 0 })
	again := natsserver.StartForTest(t, natsserver.Options{Dir: dir, Port: s.Port()})
	f.published(2)
	if got := storedIDs(t, consumer(t, again)); !slices.Equal(got, eventIDs(0, 2)) {
		t.Errorf("the stream has %q", got)
	}
}

func TestOverflow(t *testing.T) {
	dir := t.TempDir()
	s := natsserver.StartForTest(t, natsserver.Options{Dir: dir})
	s.Stop()
	const room = 10
	var f *fixture
	var calls atomic.Int64
	f = newFixture(t, s.URL(), func(o *Options) {
		o.Config.Buffer = room
		o.Rebuild = func(ctx context.Context) {
			calls.Add(1)
			// More than there is room for, some of which the stream has already.
			for n := range 5 * room {
				if err := f.PublishWhenRoom(ctx, event(n)); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for n := range 3 * room {
		f.Publish(event(n))
	}
	if got := f.dropped(droppedOverflow); got != 2*room {
		t.Errorf("%v dropped, want %d", got, 2*room)
	}
	f.start()
	again := natsserver.StartForTest(t, natsserver.Options{Dir: dir, Port: s.Port()})
	f.published(6 * room)
	want := append(eventIDs(2*room, 3*room), eventIDs(0, 2*room)...)
	want = append(want, eventIDs(3*room, 5*room)...)
	if got := storedIDs(t, consumer(t, again)); !slices.Equal(got, want) {
		t.Errorf("the stream has\n%q, want the newest, then what the rebuild added:\n%q", got, want)
	}
	f.Publish(event(100))
	f.published(6*room + 1)
	time.Sleep(20 * time.Millisecond)
	if got := calls.Load(); got != 1 {
		t.Errorf("the state was rebuilt %d times, want once", got)
	}
	if got := f.dropped(droppedOverflow); got != 2*room {
		t.Errorf("%v dropped after the rebuild, want %d: it must wait for room", got, 2*room)
	}
}

func TestStreamIsCreated(t *testing.T) {
	s := natsserver.StartForTest(t, natsserver.Options{})
	newFixture(t, s.URL(), func(o *Options) { o.Config.MaxBytes = 1 << 20 }).start()
	js := consumer(t, s)
	var info *jetstream.StreamInfo
	eventually(t, "the stream, before any event", func() bool {
		stream, err := js.Stream(t.Context(), "AGENT_LIFECYCLE")
		if err != nil {
			return false
		}
		info = stream.CachedInfo()
		return true
	})
	c := info.Config
	if !slices.Equal(c.Subjects, []string{"genbrain.events.>"}) || c.MaxAge != 7*24*time.Hour || c.Duplicates != time.Hour ||
		c.Storage != jetstream.FileStorage || c.Replicas != 1 || c.MaxBytes != 1<<20 {
		t.Errorf("created %+v", c)
	}
}

func TestExistingStreamIsLeftAlone(t *testing.T) {
	s := natsserver.StartForTest(t, natsserver.Options{})
	js := consumer(t, s)
	mine := jetstream.StreamConfig{Name: "MINE", Subjects: []string{"genbrain.>"}, MaxAge: time.Hour}
	if _, err := js.CreateStream(t.Context(), mine); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, s.URL(), nil).start()
	f.Publish(event(1))
	f.published(1)
	stream, err := js.Stream(t.Context(), "MINE")
	if err != nil {
		t.Fatal(err)
	}
	if c := stream.CachedInfo().Config; c.MaxAge != time.Hour || stream.CachedInfo().State.Msgs != 1 {
		t.Errorf("the stream has become %+v", stream.CachedInfo())
	}
	if got := f.log.lines("level=WARN"); len(got) > 0 {
		t.Errorf("warnings: %s", got)
	}
}

func TestStreamIsMissing(t *testing.T) {
	s := natsserver.StartForTest(t, natsserver.Options{})
	f := newFixture(t, s.URL(), func(o *Options) { o.Config.CreateStream = false }).start()
	f.Publish(event(0))
	f.Publish(event(1))
	const says = "no stream takes genbrain.events.namespace.idle: there must be one with the subjects genbrain.events.>; " +
		"create it, or allow its creation as AGENT_LIFECYCLE"
	eventually(t, says, func() bool { return len(f.log.lines(says)) > 0 })
	time.Sleep(50 * time.Millisecond) // some more attempts
	if got := f.log.lines("level=WARN"); len(got) != 1 {
		t.Errorf("%d warnings, want 1:\n%s", len(got), got)
	}

	js := consumer(t, s)
	if _, err := js.CreateStream(t.Context(), f.options.Config.streamConfig()); err != nil {
		t.Fatal(err)
	}
	f.published(2)
	if got := storedIDs(t, js); !slices.Equal(got, eventIDs(0, 2)) {
		t.Errorf("the stream has %q", got)
	}
}

func TestStreamWithOtherSubjects(t *testing.T) {
	s := natsserver.StartForTest(t, natsserver.Options{})
	js := consumer(t, s)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "AGENT_LIFECYCLE", Subjects: []string{"old.>"}}); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, s.URL(), nil).start()
	f.Publish(event(0))
	const says = "there must be one with the subjects genbrain.events.>; stream AGENT_LIFECYCLE has old.>"
	eventually(t, says, func() bool { return len(f.log.lines(says)) > 0 })
	repaired := jetstream.StreamConfig{Name: "AGENT_LIFECYCLE", Subjects: []string{"old.>", "genbrain.events.>"}}
	if _, err := js.UpdateStream(t.Context(), repaired); err != nil {
		t.Fatal(err)
	}
	f.published(1)
}

func TestStreamIsDeletedMeanwhile(t *testing.T) {
	s := natsserver.StartForTest(t, natsserver.Options{})
	f := newFixture(t, s.URL(), nil).start()
	f.Publish(event(0))
	f.published(1)
	js := consumer(t, s)
	if err := js.DeleteStream(t.Context(), "AGENT_LIFECYCLE"); err != nil {
		t.Fatal(err)
	}
	f.Publish(event(1))
	f.published(2)
	if got := storedIDs(t, js); !slices.Equal(got, eventIDs(1, 2)) {
		t.Errorf("the new stream has %q", got)
	}
}

func TestTooLarge(t *testing.T) {
	for name, configure := range map[string]func(*server.Options){
		"for the server": func(o *server.Options) { o.MaxPayload = 2048 },
		"for the stream": nil,
	} {
		t.Run(name, func(t *testing.T) {
			s := natsserver.StartForTest(t, natsserver.Options{Configure: configure})
			js := consumer(t, s)
			config := DefaultConfig()
			stream := config.streamConfig()
			if configure == nil {
				stream.MaxMsgSize = 2048
			}
			if _, err := js.CreateStream(t.Context(), stream); err != nil {
				t.Fatal(err)
			}
			f := newFixture(t, s.URL(), nil)
			large := event(1)
			large.Data = strings.Repeat("x", 4096)
			f.Publish(event(0))
			f.Publish(large)
			f.Publish(event(2))
			f.start()
			f.published(2)
			if got := storedIDs(t, js); !slices.Equal(got, ids(event(0), event(2))) {
				t.Errorf("the stream has %q, want the first and the last", got)
			}
			if got := f.dropped(droppedTooLarge); got != 1 {
				t.Errorf("%v dropped as too large, want 1", got)
			}
			if got := f.log.lines("An event was dropped"); len(got) != 1 || !strings.Contains(got[0], large.ID) {
				t.Errorf("logged %q, want the id of what was dropped", got)
			}
		})
	}
}

func TestForbidden(t *testing.T) {
	s := natsserver.StartForTest(t, natsserver.Options{Configure: func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "us", Password: "secret", Permissions: &server.Permissions{
				Publish:   &server.SubjectPermission{Allow: []string{"genbrain.events.agent.>"}},
				Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
			}},
			{Username: "admin", Password: "admin"},
		}
	}})
	js := consumer(t, s, nats.UserInfo("admin", "admin"))
	config := DefaultConfig()
	if _, err := js.CreateStream(t.Context(), config.streamConfig()); err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, s.URL(), func(o *Options) {
		o.Config.UsernameFile, o.Config.PasswordFile = write(t, "username", "us\n"), write(t, "password", "secret\n")
		o.Config.CreateStream = false
	})
	allowed := Agent("/test", AgentCreated, AgentData{Namespace: "dexorder-agents", Deployment: "a", UID: "u2"}, start)
	for n := range 20 {
		f.Publish(event(n))
	}
	f.Publish(allowed)
	began := time.Now()
	f.start()
	f.published(1)
	// Without hearing what the server says, each attempt would take all the time an acknowledgement may take.
	if took := time.Since(began); took > f.pace.acknowledge {
		t.Errorf("it took %s to come to what is allowed", took)
	}
	if got := storedIDs(t, js); !slices.Equal(got, ids(allowed)) {
		t.Errorf("the stream has %q", got)
	}
	if got := f.dropped(droppedRefused); got != 20 {
		t.Errorf("%v dropped as refused, want 20", got)
	}
	if got := f.log.lines("An event was dropped"); len(got) != 1 {
		t.Errorf("%d lines for one type that is refused, want 1", len(got))
	}
}

func TestForbiddenToCreateStream(t *testing.T) {
	s := natsserver.StartForTest(t, natsserver.Options{Configure: func(o *server.Options) {
		o.Users = []*server.User{{Username: "us", Password: "secret", Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: []string{"genbrain.events.>"}},
			Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
		}}}
	}})
	f := newFixture(t, s.URL(), func(o *Options) {
		o.Config.UsernameFile, o.Config.PasswordFile = write(t, "username", "us"), write(t, "password", "secret")
	})
	f.pace.flush = 50 * time.Millisecond
	f.start()
	f.Publish(event(0))
	for _, says := range []string{troubleStream, troubleUntaken} {
		eventually(t, says, func() bool { return len(f.log.lines(says)) > 0 })
		if line := f.log.lines(says)[0]; !strings.Contains(line, "$JS.API.STREAM.INFO.AGENT_LIFECYCLE") {
			t.Errorf("logged %s, want what is not permitted", line)
		}
	}
	if got := f.buffer.depth(); got != 1 {
		t.Errorf("%d wait, want 1", got)
	}
}

func TestFlush(t *testing.T) {
	t.Run("what waits is published", func(t *testing.T) {
		s := natsserver.StartForTest(t, natsserver.Options{})
		f := newFixture(t, s.URL(), nil)
		for n := range 100 {
			f.Publish(event(n))
		}
		f.start().stop()
		if got := storedIDs(t, consumer(t, s)); !slices.Equal(got, eventIDs(0, 100)) {
			t.Errorf("the stream has %d events, want 100", len(got))
		}
	})
	t.Run("for a bounded time", func(t *testing.T) {
		s := natsserver.StartForTest(t, natsserver.Options{})
		s.Stop()
		f := newFixture(t, s.URL(), nil)
		f.pace.flush = 50 * time.Millisecond
		f.Publish(event(0))
		f.Publish(event(1))
		f.start().stop()
		f.Publish(event(2))
		if got := f.dropped(droppedShutdown); got != 3 {
			t.Errorf("%v dropped at the end and after it, want 3", got)
		}
	})
	t.Run("at once if nothing waits, however long the pause", func(t *testing.T) {
		s := natsserver.StartForTest(t, natsserver.Options{})
		s.Stop()
		f := newFixture(t, s.URL(), nil)
		f.pace.retryLeast, f.pace.retryMost = time.Hour, time.Hour
		f.start()
		eventually(t, "trouble", func() bool { return len(f.log.lines(troubleAway)) > 0 })
		began := time.Now()
		f.stop()
		if took := time.Since(began); took > f.pace.flush/2 {
			t.Errorf("Run took %s to return", took)
		}
	})
	t.Run("although the server does not answer", func(t *testing.T) {
		silent, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		f := newFixture(t, "nats://"+silent.Addr().String(), nil)
		f.pace.flush = 50 * time.Millisecond
		f.Publish(event(0))
		began := time.Now()
		f.start().stop()
		if took := time.Since(began); took > dialTimeout/2 {
			t.Errorf("Run took %s to return", took)
		}
		if got := f.dropped(droppedShutdown); got != 1 {
			t.Errorf("%v dropped, want 1", got)
		}
	})
}

func TestNilPublisher(t *testing.T) {
	var p *Publisher
	p.Publish(event(1))
	if err := p.PublishWhenRoom(t.Context(), event(1)); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Run(ctx); err != nil {
		t.Error(err)
	}
}

func TestPublishWhenRoomEndsWithItsContext(t *testing.T) {
	f := newFixture(t, "nats://127.0.0.1:4222", func(o *Options) { o.Config.Buffer = 1 })
	f.Publish(event(0))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.PublishWhenRoom(ctx, event(1)); err == nil {
		t.Error("no error although there is no room")
	}
	if got := f.dropped(droppedOverflow); got != 0 {
		t.Errorf("%v dropped, want 0", got)
	}
}

func BenchmarkPublish(b *testing.B) {
	s := natsserver.StartForTest(b, natsserver.Options{})
	config := DefaultConfig()
	l, err := (&Config{URL: s.URL(), InboxPrefix: config.InboxPrefix}).connect(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer l.conn.Close()
	if err := l.ensureStream(b.Context(), &config); err != nil {
		b.Fatal(err)
	}
	n := 0
	for b.Loop() {
		e := event(n)
		n++
		if err := l.publish(b.Context(), time.Second, "genbrain.events.test", &item{event: e, publishedID: e.ID}); err != nil {
			b.Fatal(err)
		}
	}
}

// Whatever moment the connection is cut at, before the message, before its acknowledgement or within either, each event
// comes once and in order.
func TestConnectionIsCutAgainAndAgain(t *testing.T) {
	s := natsserver.StartForTest(t, natsserver.Options{})
	door, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer door.Close()
	var cuts atomic.Int64
	go func() {
		for {
			client, err := door.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				upstream, err := net.Dial("tcp", strings.TrimPrefix(s.URL(), "nats://"))
				if err != nil {
					return
				}
				defer upstream.Close()
				go func() { _, _ = io.Copy(upstream, client) }()
				// Beyond the greeting, so that something gets through each time.
				_, _ = io.CopyN(client, upstream, 6000+rand.Int64N(3000))
				cuts.Add(1)
			}()
		}
	}()
	f := newFixture(t, "nats://"+door.Addr().String(), nil).start()
	const total = 1000
	for n := range total {
		f.Publish(event(n))
	}
	f.published(total)
	if got := storedIDs(t, consumer(t, s)); !slices.Equal(got, eventIDs(0, total)) {
		t.Errorf("the stream has %d events, want %d in order", len(got), total)
	}
	if cuts.Load() < 5 {
		t.Errorf("the connection was cut %d times only", cuts.Load())
	}
}

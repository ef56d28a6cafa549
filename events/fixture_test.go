package events

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/dexorder/agent-lifecycle/internal/natsserver"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// fixture is a Publisher under test, with what it says.
type fixture struct {
	*Publisher
	t    *testing.T
	log  *logBuffer
	now  *clock
	stop func()
}

// clock is a time that only tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) lines(containing string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var lines []string
	for line := range strings.Lines(b.text.String()) {
		if strings.Contains(line, containing) {
			lines = append(lines, line)
		}
	}
	return lines
}

// newFixture makes a Publisher with pauses a test can wait for. It does not run yet.
func newFixture(t *testing.T, url string, change func(*Options)) *fixture {
	t.Helper()
	f := &fixture{t: t, log: &logBuffer{}, now: &clock{now: start}}
	options := Options{
		Config: DefaultConfig(), Now: f.now.Now, Metrics: NewMetrics(prometheus.NewRegistry()),
		Logger: slog.New(slog.NewTextHandler(f.log, nil)),
	}
	options.Config.URL = url
	options.Config.EventIDKeyFile = write(t, "event-ids.key", testKey)
	if change != nil {
		change(&options)
	}
	var err error
	if f.Publisher, err = New(options); err != nil {
		t.Fatal(err)
	}
	f.pace.retryLeast, f.pace.retryMost = time.Millisecond, 20*time.Millisecond
	f.pace.rebuild = time.Millisecond
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log:\n%s", strings.Join(f.log.lines(""), ""))
		}
	})
	return f
}

// start runs the Publisher until the test ends or stop is called, which returns when Run has.
func (f *fixture) start() *fixture {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			f.t.Errorf("Run: %v", err)
		}
	})
	f.t.Cleanup(f.stop)
	return f
}

// testKey is the key of event ids that every fixture has, unless a test says otherwise.
const testKey = "sixteen bytes---"

// published is the id under which a Publisher with testKey publishes the event with this id.
func published(id string) string {
	mac := hmac.New(sha256.New, []byte(testKey))
	mac.Write([]byte(id))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// event is the nth one of a test.
func event(n int) Event {
	return Namespace("/test", NamespaceIdle, NamespaceData{Namespace: "agent-ceo", UID: "u1", Since: start.Add(time.Duration(n) * time.Second)}, start)
}

func ids(events ...Event) []string {
	out := make([]string, 0, len(events))
	for i := range events {
		out = append(out, published(events[i].ID))
	}
	return out
}

func eventIDs(from, to int) []string {
	var out []string
	for n := from; n < to; n++ {
		out = append(out, published(event(n).ID))
	}
	return out
}

func (f *fixture) dropped(reason string) float64 {
	return testutil.ToFloat64(f.options.Metrics.dropped.WithLabelValues(reason))
}

// eventually waits for what must come true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came: %s", what)
		}
	}
}

// consumer is somebody else's connection to the server.
func consumer(t *testing.T, s *natsserver.Server, options ...nats.Option) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect(s.URL(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// stored returns what is in the stream, oldest first.
func stored(t *testing.T, js jetstream.JetStream) []*jetstream.RawStreamMsg {
	t.Helper()
	stream, err := js.Stream(t.Context(), DefaultConfig().Stream)
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var messages []*jetstream.RawStreamMsg
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
		m, err := stream.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, m)
	}
	return messages
}

func storedIDs(t *testing.T, js jetstream.JetStream) []string {
	t.Helper()
	var out []string
	for _, m := range stored(t, js) {
		out = append(out, m.Header.Get(jetstream.MsgIDHeader))
	}
	return out
}

// published waits until so many were acknowledged, of all types.
func (f *fixture) published(n int) {
	f.t.Helper()
	eventually(f.t, fmt.Sprintf("%d acknowledgements", n), func() bool {
		sum := 0.0
		for _, t := range Types() {
			sum += testutil.ToFloat64(f.options.Metrics.published.WithLabelValues(string(t)))
		}
		return int(sum) >= n
	})
}

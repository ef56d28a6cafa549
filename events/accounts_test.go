package events

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/dexorder/agent-lifecycle/internal/natsserver"
)

const accountsFile = "../manifests/components/nats/nats-server.conf"

// accounts is a server with the users of accountsFile.
type accounts struct {
	*natsserver.Server
	t *testing.T
}

// startAccounts starts a server with the file, in which replace, pairs of old and new text, stands for what an operator
// adds. With together all users are in the account of the stream, as where there is only one.
func startAccounts(t *testing.T, together bool, replace ...string) *accounts {
	t.Helper()
	for _, user := range []string{"LIFECYCLE", "GATEWAY", "READER", "AGENT_A", "AGENT_B"} {
		t.Setenv(user+"_PASSWORD", "secret")
	}
	text, err := os.ReadFile(accountsFile)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(string(text), replace[i]) {
			t.Fatalf("%s lacks %q", accountsFile, replace[i])
		}
	}
	file := write(t, "nats-server.conf", strings.NewReplacer(replace...).Replace(string(text)))
	parsed, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if together {
		i := slices.IndexFunc(parsed.Accounts, func(a *server.Account) bool { return a.Name == "LIFECYCLE" })
		for _, user := range parsed.Users {
			user.Account = parsed.Accounts[i]
		}
	}
	return &accounts{t: t, Server: natsserver.StartForTest(t, natsserver.Options{Configure: func(o *server.Options) {
		parsed.Host, parsed.Port, parsed.StoreDir, parsed.ServerName = o.Host, o.Port, o.StoreDir, o.ServerName
		parsed.NoLog, parsed.NoSigs, parsed.DisableJetStreamBanner = o.NoLog, o.NoSigs, o.DisableJetStreamBanner
		*o = *parsed
	}})}
}

// publisher returns a Publisher that is the user. It does not run yet.
func (a *accounts) publisher(user string) *fixture {
	a.t.Helper()
	return newFixture(a.t, a.URL(), func(o *Options) {
		o.Config.UsernameFile, o.Config.PasswordFile = write(a.t, "user", user), write(a.t, "password", "secret")
	})
}

// connect returns a connection of the user.
func (a *accounts) connect(user string, options ...nats.Option) *nats.Conn {
	a.t.Helper()
	options = append(options, nats.UserInfo(user, "secret"),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // the default one prints them
	conn, err := nats.Connect(a.URL(), options...)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(conn.Close)
	return conn
}

func (a *accounts) jetStream(user string, options ...nats.Option) jetstream.JetStream {
	a.t.Helper()
	js, err := jetstream.New(a.connect(user, options...))
	if err != nil {
		a.t.Fatal(err)
	}
	return js
}

// events is how many messages the stream of events has.
func (a *accounts) events(js jetstream.JetStream) uint64 {
	a.t.Helper()
	stream, err := js.Stream(a.t.Context(), DefaultConfig().Stream)
	if err != nil {
		a.t.Fatal(err)
	}
	return stream.CachedInfo().State.Msgs
}

// violation returns what the server has refused of what was sent last; empty if nothing.
func violation(t *testing.T, conn *nats.Conn) string {
	t.Helper()
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	// The client has read the server's refusal before the answer to the flush.
	err := conn.LastError()
	if err == nil {
		return ""
	}
	if !errors.Is(err, nats.ErrPermissionViolation) {
		t.Fatal(err)
	}
	return err.Error()
}

// checkRefused expects that the user may neither publish to nor subscribe to these subjects.
func (a *accounts) checkRefused(user string, publish, subscribe []string) {
	a.t.Helper()
	conn := a.connect(user)
	for _, subject := range publish {
		if err := conn.Publish(subject, []byte("x")); err != nil {
			a.t.Fatal(err)
		}
		if got := violation(a.t, conn); !strings.Contains(got, fmt.Sprintf("Publish to %q", subject)) {
			a.t.Errorf("%s publishes to %s: the last violation is %q", user, subject, got)
		}
	}
	for _, subject := range subscribe {
		for _, queue := range []string{"", "workers"} {
			if _, err := conn.QueueSubscribeSync(subject, queue); err != nil {
				a.t.Fatal(err)
			}
			want := fmt.Sprintf("Subscription to %q", subject)
			if queue != "" {
				want += fmt.Sprintf(" using queue %q", queue)
			}
			if got := violation(a.t, conn); !strings.Contains(got, want) {
				a.t.Errorf("%s subscribes to %s in queue %q: the last violation is %q", user, subject, queue, got)
			}
		}
	}
}

// What an agent may not do is refused by its own permissions, wherever its account.
func TestAgentsMayNotTouchEvents(t *testing.T) {
	for _, together := range []bool{false, true} {
		t.Run(fmt.Sprintf("in the account of the stream: %t", together), func(t *testing.T) {
			a := startAccounts(t, together)
			a.publisher("lifecycle").getsThrough()
			a.checkRefused("agent-a", []string{
				"genbrain.events.agent.deleted", "genbrain.events.x", "genbrain",
				"$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.CREATE.MINE", "$JS.API.STREAM.UPDATE.AGENT_LIFECYCLE",
				"$JS.API.STREAM.INFO.AGENT_LIFECYCLE", "$JS.API.STREAM.DELETE.AGENT_LIFECYCLE", "$JS.API.STREAM.PURGE.AGENT_LIFECYCLE",
				"$JS.API.STREAM.MSG.GET.AGENT_LIFECYCLE", "$JS.API.STREAM.MSG.DELETE.AGENT_LIFECYCLE", "$JS.API.DIRECT.GET.AGENT_LIFECYCLE",
				"$JS.API.CONSUMER.CREATE.AGENT_LIFECYCLE", "$JS.API.CONSUMER.CREATE.AGENT_LIFECYCLE.reader",
				"$JS.API.CONSUMER.DURABLE.CREATE.AGENT_LIFECYCLE.mine", "$JS.API.CONSUMER.DELETE.AGENT_LIFECYCLE.reader",
				"$JS.API.CONSUMER.MSG.NEXT.AGENT_LIFECYCLE.reader",
				"$JS.ACK.AGENT_LIFECYCLE.reader.1.1.1.1.1", "$JS.FC.AGENT_LIFECYCLE.reader.x", "$KV.bucket.key",
				"$SYS.REQ.SERVER.PING", "$SYS.REQ.USER.INFO", "$SYS.REQ.ACCOUNT.LIFECYCLE.CONNZ", "$SRV.PING",
				"agents", "agents.agent-a", "agents.agent-b.x", "agents.agent-b.inbox.x", "agents.agent-ab.x",
				"_INBOX.x", "_INBOX_reader.x", "anything",
			}, []string{
				">", "*.>", "*.*.>", "*.*.*.*", "*.events.>", "genbrain.>", "genbrain.*.agent.deleted", "genbrain.events.>",
				"genbrain.events.agent.deleted",
				"$JS.>", "$JS.API.>", "$JS.ACK.>", "$JS.FC.>", "$JS.EVENT.>", "$SYS.>", "$KV.>", "$SRV.>",
				"_INBOX.>", "_INBOX.*", "_INBOX_reader.>", "agents.>", "agents.*.x", "agents.*.inbox.>", "agents.agent-b.>",
			})
			if got := a.events(a.jetStream("lifecycle")); got != 1 {
				t.Errorf("the stream has %d messages, want the server's one", got)
			}
		})
	}
}

// An agent's own subjects, with its inbox among them, are enough to ask and to answer.
func TestAgentsUseTheirOwnSubjects(t *testing.T) {
	a := startAccounts(t, false)
	conn := a.connect("agent-a", nats.CustomInboxPrefix("agents.agent-a.inbox"))
	if _, err := conn.Subscribe("agents.agent-a.ask", func(m *nats.Msg) { _ = m.Respond([]byte("answer")) }); err != nil {
		t.Fatal(err)
	}
	m, err := conn.Request("agents.agent-a.ask", nil, 10*time.Second)
	if err != nil || string(m.Data) != "answer" {
		t.Errorf("asked: %v, %v", m, err)
	}
}

func TestServersPublishWithTheirAccount(t *testing.T) {
	a := startAccounts(t, false)
	// The first creates the stream.
	for range 2 {
		replica := a.publisher("lifecycle")
		replica.getsThrough()
		replica.stop()
	}
	idle := Agent("/test", AgentIdle, AgentData{Namespace: "dexorder-agents", Deployment: "a", UID: "u2", Pod: "a-1", Time: start}, start)
	gateway := a.publisher("gateway").start()
	gateway.Publish(idle)
	gateway.published(1)
	gateway.Publish(Namespace("/test", NamespaceReaped, NamespaceData{Namespace: "agent-ceo", UID: "u1"}, start))
	eventually(t, "the gateway is refused", func() bool { return gateway.dropped(droppedRefused) == 1 })
	if got := a.events(a.jetStream("lifecycle")); got != 2 {
		t.Errorf("the stream has %d messages, want 2: one of two replicas, and one of the gateway", got)
	}
	for _, user := range []string{"lifecycle", "gateway"} {
		a.checkRefused(user, []string{
			"genbrain.x", "agents.agent-a.x", "$JS.API.STREAM.UPDATE.AGENT_LIFECYCLE", "$JS.API.STREAM.DELETE.AGENT_LIFECYCLE",
			"$JS.API.STREAM.PURGE.AGENT_LIFECYCLE", "$JS.API.STREAM.MSG.DELETE.AGENT_LIFECYCLE", "$JS.API.STREAM.CREATE.OTHER", "$SYS.REQ.SERVER.PING",
		}, []string{">", "genbrain.events.>", "$JS.API.>", "$SYS.>"})
	}
	// The gateway itself has tried the reaper's event above: that the Publisher drops it is what the server makes it do.
	a.checkRefused("gateway", []string{"genbrain.events.namespace.reaped", "genbrain.events.agent.deleted"}, nil)
}

func TestReadersReadOnly(t *testing.T) {
	a := startAccounts(t, false)
	listener := a.connect("reader", nats.CustomInboxPrefix("_INBOX_reader"))
	live, err := listener.SubscribeSync("genbrain.events.>")
	if err != nil {
		t.Fatal(err)
	}
	if got := violation(t, listener); got != "" {
		t.Fatal(got)
	}
	a.publisher("lifecycle").getsThrough()
	if m, err := live.NextMsg(10 * time.Second); err != nil || m.Subject != "genbrain.events.namespace.idle" {
		t.Errorf("heard %v, %v", m, err)
	}

	js := a.jetStream("reader", nats.CustomInboxPrefix("_INBOX_reader"))
	consumer, err := js.CreateConsumer(t.Context(), "AGENT_LIFECYCLE", jetstream.ConsumerConfig{Durable: "reader"})
	if err != nil {
		t.Fatal(err)
	}
	m, err := consumer.Next()
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Headers().Get(jetstream.MsgIDHeader); got != published(event(0).ID) {
		t.Errorf("read message %q", got)
	}
	if err := m.DoubleAck(t.Context()); err != nil {
		t.Errorf("acknowledge: %v", err)
	}
	a.checkRefused("reader", []string{
		"genbrain.events.agent.deleted", "$JS.API.STREAM.CREATE.AGENT_LIFECYCLE", "$JS.API.STREAM.DELETE.AGENT_LIFECYCLE",
		"$JS.API.STREAM.PURGE.AGENT_LIFECYCLE", "$JS.API.STREAM.MSG.DELETE.AGENT_LIFECYCLE", "$JS.API.CONSUMER.DELETE.AGENT_LIFECYCLE.reader",
		"$JS.API.CONSUMER.CREATE.AGENT_LIFECYCLE.other", "$JS.ACK.AGENT_LIFECYCLE.other.1.1.1.1.1", "_INBOX.x",
	}, []string{">", "_INBOX.>", "$JS.API.>", "agents.>"})
}

// JetStream answers on whatever subject a message names for its reply, with its own rights: the acknowledgement of a
// stream that takes agents' messages would become an event. Nothing crosses the border of an account, and so agents
// have one of their own.
func TestReplySubjectDoesNotForgeEvents(t *testing.T) {
	const admin = `users: [
      { user: admin, password: secret, permissions { publish: ">", subscribe: ">" } }
      {
        user: agent-a`
	for _, together := range []bool{false, true} {
		t.Run(fmt.Sprintf("in the account of the stream: %t", together), func(t *testing.T) {
			a := startAccounts(t, together, "  AGENTS {\n", "  AGENTS {\n    jetstream: enabled\n", "users: [\n      {\n        user: agent-a", admin)
			a.publisher("lifecycle").getsThrough()
			work := a.jetStream("admin")
			stream, err := work.CreateStream(t.Context(), jetstream.StreamConfig{Name: "WORK", Subjects: []string{"agents.>"}})
			if err != nil {
				t.Fatal(err)
			}
			conn := a.connect("agent-a")
			if err := conn.PublishRequest("agents.agent-a.task", "genbrain.events.agent.deleted", nil); err != nil {
				t.Fatal(err)
			}
			if got := violation(t, conn); got != "" {
				t.Fatalf("the server asks about reply subjects by now: %s", got)
			}
			eventually(t, "the task is stored", func() bool {
				info, err := stream.Info(t.Context())
				return err == nil && info.State.Msgs == 1
			})
			reader := a.jetStream("lifecycle")
			if together {
				eventually(t, "in one account it is forged", func() bool { return a.events(reader) == 2 })
				return
			}
			// Whatever the first one's acknowledgement does, it does before the second one is stored.
			if _, err := work.Publish(t.Context(), "agents.admin.task", nil); err != nil {
				t.Fatal(err)
			}
			if got := a.events(reader); got != 1 {
				t.Errorf("the stream has %d messages, want the server's one", got)
			}
		})
	}
}

// What the page says of readers: JetStream answers them on a subject of events too, and an account that imports events
// can only listen.
func TestReadersWhoAreNotTrusted(t *testing.T) {
	a := startAccounts(t, false, "accounts {\n  # The stream", `accounts {
  WATCHERS {
    imports: [ { stream: { account: LIFECYCLE, subject: "genbrain.events.>" } } ]
    users: [ { user: watcher, password: secret } ]
  }
  # The stream`, "  LIFECYCLE {\n", `  LIFECYCLE {
    exports: [ { stream: "genbrain.events.>", accounts: [WATCHERS] } ]
`)
	watcher := a.connect("watcher")
	live, err := watcher.SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	if got := violation(t, watcher); got != "" {
		t.Fatal(got)
	}
	a.publisher("lifecycle").getsThrough()
	if m, err := live.NextMsg(10 * time.Second); err != nil || m.Subject != "genbrain.events.namespace.idle" {
		t.Errorf("the watcher heard %v, %v", m, err)
	}
	for _, request := range []string{"genbrain.events.agent.deleted", "$JS.API.STREAM.INFO.AGENT_LIFECYCLE"} {
		if err := watcher.PublishRequest(request, "genbrain.events.agent.deleted", nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := violation(t, watcher); got != "" {
		t.Fatal(got)
	}
	js := a.jetStream("lifecycle")
	if got := a.events(js); got != 1 {
		t.Errorf("the stream has %d messages after the watcher's, want 1", got)
	}
	if err := a.connect("reader").PublishRequest("$JS.API.STREAM.INFO.AGENT_LIFECYCLE", "genbrain.events.agent.deleted", nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a reader's answer is stored", func() bool { return a.events(js) == 2 })
}

// Who is not in the file may do nothing.
func TestOthersMayDoNothing(t *testing.T) {
	a := startAccounts(t, false, "users: [\n      {\n        user: agent-a",
		"users: [\n      { user: newcomer, password: secret }\n      {\n        user: agent-a")
	for name, options := range map[string][]nats.Option{
		"without credentials":   nil,
		"of an unknown user":    {nats.UserInfo("agent-c", "secret")},
		"with a wrong password": {nats.UserInfo("agent-a", "secret2")},
	} {
		if conn, err := nats.Connect(a.URL(), options...); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("%s: %v, %v, want %v", name, conn, err, nats.ErrAuthorization)
		}
	}
	a.checkRefused("newcomer", []string{"anything", "agents.newcomer.x", "genbrain.events.x"}, []string{">", "agents.newcomer.>"})
}

// The page shows the file.
func TestPageShowsAccounts(t *testing.T) {
	page, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(accountsFile)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "\n```conf\n"+string(text)+"```\n") {
		t.Errorf("%s does not show %s as it is", pageFile, accountsFile)
	}
}

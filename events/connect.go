package events

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// dialTimeout bounds the connection to one server.
	dialTimeout = 5 * time.Second

	// pingInterval and pingsOutstanding find a connection that died without a word.
	pingInterval     = 20 * time.Second
	pingsOutstanding = 2
)

// link is one connection. The client does not reconnect by itself: a new link reads the credentials and certificates anew, and
// there is one place that waits and says so.
type link struct {
	conn *nats.Conn
	js   jetstream.JetStream

	closed    chan struct{}
	closeOnce sync.Once

	mu sync.Mutex
	// violated hears of refusals during an attempt.
	violated func(error)
}

// connect makes one attempt. Ending ctx ends it, and nothing after it.
func (c *Config) connect(ctx context.Context) (*link, error) {
	l := &link{closed: make(chan struct{})}
	d := &dialer{ctx: ctx, release: func() bool { return true }}
	defer func() { d.release() }()
	options, err := c.options()
	if err != nil {
		return nil, err
	}
	options = append(options,
		nats.Name("agent-lifecycle"), nats.NoReconnect(), nats.Timeout(dialTimeout), nats.CustomInboxPrefix(c.InboxPrefix),
		nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(pingsOutstanding), nats.SetCustomDialer(d),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { l.heard(err) }),
		nats.ClosedHandler(func(*nats.Conn) { l.closeOnce.Do(func() { close(l.closed) }) }))
	if l.conn, err = nats.Connect(c.URL, options...); err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	if l.js, err = jetstream.New(l.conn); err != nil {
		l.conn.Close()
		return nil, err
	}
	return l, nil
}

// dialer makes dialling, and what is said before there is a connection, end with a context, of which the client knows nothing.
type dialer struct {
	ctx     context.Context
	release func() bool
}

func (d *dialer) Dial(network, address string) (net.Conn, error) {
	d.release()
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(d.ctx, network, address)
	if err == nil {
		d.release = context.AfterFunc(d.ctx, func() { conn.Close() })
	}
	return conn, err
}

// options reads the files.
func (c *Config) options() ([]nats.Option, error) {
	var options []nats.Option
	if c.CAFile != "" || c.CertFile != "" || strings.Contains(c.URL, "tls://") {
		config, err := c.tls()
		if err != nil {
			return nil, err
		}
		options = append(options, nats.Secure(config))
	}
	switch {
	case c.CredentialsFile != "":
		options = append(options, nats.UserCredentials(c.CredentialsFile))
	case c.NkeyFile != "":
		option, err := nats.NkeyOptionFromSeed(c.NkeyFile)
		if err != nil {
			return nil, fmt.Errorf("nkey %s: %w", c.NkeyFile, err)
		}
		options = append(options, option)
	case c.UsernameFile != "":
		username, err := os.ReadFile(c.UsernameFile)
		if err != nil {
			return nil, err
		}
		password, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return nil, err
		}
		options = append(options, nats.UserInfo(line(username), line(password)))
	}
	return options, nil
}

// line drops the end of line that editors add.
func line(data []byte) string { return strings.TrimRight(string(data), "\r\n") }

func (c *Config) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		data, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("CA %s: holds no certificate in PEM", c.CAFile)
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("certificate %s with key %s: %w", c.CertFile, c.KeyFile, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// errForbidden is a message that the user may not send.
var errForbidden = errors.New("the user may not publish it")

// heard gets what the server says without being asked.
func (l *link) heard(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.violated != nil && errors.Is(err, nats.ErrPermissionViolation) {
		l.violated(err)
	}
}

// watch returns a context for one attempt. The server does not answer a request that it forbids: the attempt ends when the
// server says so, instead of when its time is up. What it forbids is told apart by its words, as the protocol has no other
// way: errForbidden if that is publishing to subject.
func (l *link) watch(ctx context.Context, subject string) (context.Context, func()) {
	attempt, refuse := context.WithCancelCause(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.violated = func(err error) {
		if subject != "" && strings.Contains(err.Error(), fmt.Sprintf("Publish to %q", subject)) {
			err = errors.Join(errForbidden, err)
		}
		refuse(err)
	}
	return attempt, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.violated = nil
		refuse(nil)
	}
}

// explain returns nil for nil, else why the attempt failed.
func (l *link) explain(attempt context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(attempt); cause != nil {
		err = cause
	}
	return fmt.Errorf("%s: %w", what, err)
}

// publish returns nil once the stream has the message.
func (l *link) publish(ctx context.Context, timeout time.Duration, subject string, i *item) error {
	attempt, done := l.watch(ctx, subject)
	defer done()
	timed, cancel := context.WithTimeoutCause(attempt, timeout,
		fmt.Errorf("no acknowledgement within %s; is there a stream that takes it?", timeout))
	defer cancel()
	body, err := i.message()
	if err != nil {
		return err
	}
	message := &nats.Msg{Subject: subject, Data: body, Header: nats.Header{"content-type": {ContentType}}}
	_, err = l.js.PublishMsg(timed, message, jetstream.WithMsgID(i.publishedID), jetstream.WithRetryAttempts(0))
	return l.explain(timed, subject, err)
}

// gone says whether the connection is closed.
func (l *link) gone() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

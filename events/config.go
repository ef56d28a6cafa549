package events

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Config says where events go. Secrets are in files, which are read anew for every connection, so that they may be replaced.
type Config struct {
	// URL of a NATS server, such as "nats://nats.nats:4222", or of several of one cluster, separated by commas. With the
	// scheme tls, or with CAFile or CertFile, a server without TLS is refused.
	URL string

	// CAFile holds the CAs, in PEM, that may sign the server's certificate. Empty means those of the system.
	CAFile string

	// CertFile and KeyFile are a client certificate, in PEM. Both or neither.
	CertFile, KeyFile string

	// At most one of the next three says who the client is.

	// CredentialsFile is a .creds file: a user's JWT and seed.
	CredentialsFile string

	// NkeyFile holds a user's nkey seed.
	NkeyFile string

	// UsernameFile and PasswordFile are what their names say. Both or neither.
	UsernameFile, PasswordFile string

	// EventIDKeyFile holds the key that event ids are made with, MinEventIDKey to MaxEventIDKey bytes, which are taken as
	// they are. Replicas share it, and what one publishes another one's stream recognises. Without it, or while the file
	// does not exist, an event's id follows from what happened alone: whoever may publish on its subject can send that id
	// first, and the stream takes the event for a duplicate.
	EventIDKeyFile string

	// InboxPrefix starts the subjects on which acknowledgements come. It matters where the user may not subscribe to _INBOX.
	InboxPrefix string

	// Prefix and the event's type are the subject of its message. It ends with a dot.
	Prefix string

	// CreateStream says whether a stream that does not exist is created. One that exists is left as it is; any stream that
	// takes the subjects will do, whatever its name.
	CreateStream bool

	// Stream is the stream to create, and how. MaxAge is how long it keeps an event, 0 for ever. MaxBytes is how much it keeps,
	// 0 for no bound; when it is full the oldest go. Duplicates is for how long it recognises an event that it has already.
	// Replicas is 1 to 5.
	Stream     string
	MaxAge     time.Duration
	MaxBytes   int64
	Duplicates time.Duration
	Replicas   int

	// Buffer is how many events wait while NATS is away.
	Buffer int
}

// DefaultConfig returns a Config that lacks only the URL.
func DefaultConfig() Config {
	return Config{
		InboxPrefix:  "_INBOX",
		Prefix:       "genbrain.events.",
		CreateStream: true,
		Stream:       "AGENT_LIFECYCLE",
		MaxAge:       7 * 24 * time.Hour,
		Duplicates:   time.Hour,
		Replicas:     1,
		Buffer:       10_000,
	}
}

// Validate returns everything that is wrong with the Config. It reads no file.
func (c *Config) Validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	c.validateURL(wrong)
	if (c.CertFile == "") != (c.KeyFile == "") {
		wrong("CertFile and KeyFile: both or neither")
	}
	if (c.UsernameFile == "") != (c.PasswordFile == "") {
		wrong("UsernameFile and PasswordFile: both or neither")
	}
	identities := 0
	for _, file := range []string{c.CredentialsFile, c.NkeyFile, c.UsernameFile} {
		if file != "" {
			identities++
		}
	}
	if identities > 1 {
		wrong("CredentialsFile, NkeyFile and UsernameFile: one at most")
	}
	if !tokens(c.InboxPrefix) {
		wrong("InboxPrefix %q: must be words joined by dots", c.InboxPrefix)
	}
	if prefix, dot := strings.CutSuffix(c.Prefix, "."); !dot || !tokens(prefix) {
		wrong("Prefix %q: must be words joined by dots, and end with a dot", c.Prefix)
	}
	if c.Stream == "" || strings.ContainsAny(c.Stream, ".*>/\\ \t\r\n") {
		wrong("Stream %q: must be a name without dots, wildcards, slashes and spaces", c.Stream)
	}
	if c.MaxAge < 0 {
		wrong("MaxAge %s: must not be negative", c.MaxAge)
	}
	if c.MaxBytes < 0 {
		wrong("MaxBytes %d: must not be negative", c.MaxBytes)
	}
	if c.Duplicates <= 0 || c.MaxAge > 0 && c.Duplicates > c.MaxAge {
		wrong("Duplicates %s: must be positive, and no longer than MaxAge", c.Duplicates)
	}
	if c.Replicas < 1 || c.Replicas > 5 {
		wrong("Replicas %d: must be 1 to 5", c.Replicas)
	}
	if c.Buffer < 1 {
		wrong("Buffer %d: must be positive", c.Buffer)
	}
	return errors.Join(errs...)
}

func (c *Config) validateURL(wrong func(string, ...any)) {
	for text := range strings.SplitSeq(c.URL, ",") {
		u, err := url.Parse(strings.TrimSpace(text))
		switch {
		case err != nil:
			// The error would show the URL, and with it what may be a password.
			wrong("URL: cannot be parsed; accepted is for example nats://nats.nats:4222")
		case u.User != nil:
			wrong("URL %s: must not hold a user; use UsernameFile and PasswordFile", u.Redacted())
		case u.Scheme != "nats" && u.Scheme != "tls" || u.Host == "":
			wrong("URL %q: must be nats://HOST:PORT or tls://HOST:PORT", text)
		}
	}
}

// tokens says whether s is one or more words joined by dots, as NATS has it in subjects without wildcards.
func tokens(s string) bool {
	for token := range strings.SplitSeq(s, ".") {
		if token == "" || strings.ContainsAny(token, "*> \t\r\n") {
			return false
		}
	}
	return true
}

package events

import "flag"

// Define defines the flags that say where events go. Without --nats-url none are published.
func (c *Config) Define(set *flag.FlagSet) {
	*c = DefaultConfig()
	set.StringVar(&c.URL, "nats-url", "", "`URL` of a NATS server with JetStream, or several separated by commas; empty: no events are published")
	set.StringVar(&c.CAFile, "nats-ca", "", "`file` of the CAs that may sign the NATS server's certificate")
	set.StringVar(&c.CertFile, "nats-cert", "", "`file` of the client certificate for NATS")
	set.StringVar(&c.KeyFile, "nats-key", "", "`file` of its key")
	set.StringVar(&c.CredentialsFile, "nats-credentials", "", "`file` of NATS credentials, a user's JWT and seed")
	set.StringVar(&c.NkeyFile, "nats-nkey", "", "`file` of a user's nkey seed")
	set.StringVar(&c.UsernameFile, "nats-user", "", "`file` of a user name for NATS")
	set.StringVar(&c.PasswordFile, "nats-password", "", "`file` of its password")
	set.StringVar(&c.EventIDKeyFile, "event-id-key", "",
		"`file` of the key that event ids are made with, shared by replicas; empty: ids can be guessed")
	set.StringVar(&c.InboxPrefix, "nats-inbox-prefix", c.InboxPrefix,
		"`prefix` of the subjects on which acknowledgements come")
	set.StringVar(&c.Prefix, "nats-subject-prefix", c.Prefix, "`prefix` of the events' subjects")
	set.BoolVar(&c.CreateStream, "nats-create-stream", c.CreateStream, "create the stream if there is none for these subjects")
	set.StringVar(&c.Stream, "nats-stream", c.Stream, "`name` of the stream that is created")
	set.DurationVar(&c.MaxAge, "nats-stream-max-age", c.MaxAge, "how long that stream keeps an event; 0: for ever")
	set.IntVar(&c.Replicas, "nats-stream-replicas", c.Replicas, "how many NATS servers keep that stream")
	set.IntVar(&c.Buffer, "nats-buffer", c.Buffer, "most `events` that wait while NATS is away")
}

// Check returns what is wrong with them, if events are published.
func (c *Config) Check() []error {
	if c.URL == "" {
		return nil
	}
	if err := c.Validate(); err != nil {
		return []error{err}
	}
	return nil
}

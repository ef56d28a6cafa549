package events

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		change func(*Config)
		want   string
	}{
		{func(*Config) {}, ""},
		{func(c *Config) { c.URL = "tls://a:4222,nats://b:4222" }, ""},
		{func(c *Config) { c.MaxAge = 0 }, ""},
		{func(c *Config) { c.URL = "" }, `URL "": must be nats://HOST:PORT or tls://HOST:PORT`},
		{func(c *Config) { c.URL = "http://a" }, `URL "http://a": must be nats://HOST:PORT or tls://HOST:PORT`},
		{func(c *Config) { c.URL = "nats://u:geheim@a" }, "URL nats://u:xxxxx@a: must not hold a user; use UsernameFile and PasswordFile"},
		{func(c *Config) { c.URL = "nats://u:gehe%im@a" }, "URL: cannot be parsed; accepted is for example nats://nats.nats:4222"},
		{func(c *Config) { c.CertFile = "c" }, "CertFile and KeyFile: both or neither"},
		{func(c *Config) { c.PasswordFile = "p" }, "UsernameFile and PasswordFile: both or neither"},
		{func(c *Config) { c.NkeyFile, c.CredentialsFile = "n", "c" }, "CredentialsFile, NkeyFile and UsernameFile: one at most"},
		{func(c *Config) { c.InboxPrefix = "_INBOX." }, `InboxPrefix "_INBOX.": must be words joined by dots`},
		{func(c *Config) { c.Prefix = "genbrain.events" }, `Prefix "genbrain.events": must be words joined by dots, and end with a dot`},
		{func(c *Config) { c.Prefix = "genbrain.*." }, `Prefix "genbrain.*.": must be words joined by dots, and end with a dot`},
		{func(c *Config) { c.Stream = "a.b" }, `Stream "a.b": must be a name without dots, wildcards, slashes and spaces`},
		{func(c *Config) { c.MaxAge = -time.Second }, "MaxAge -1s: must not be negative"},
		{func(c *Config) { c.MaxAge = time.Minute }, "Duplicates 1h0m0s: must be positive, and no longer than MaxAge"},
		{func(c *Config) { c.MaxBytes = -1 }, "MaxBytes -1: must not be negative"},
		{func(c *Config) { c.Replicas = 6 }, "Replicas 6: must be 1 to 5"},
		{func(c *Config) { c.Buffer = 0 }, "Buffer 0: must be positive"},
		{func(c *Config) { c.Buffer, c.Replicas = 0, 0 }, "Replicas 0: must be 1 to 5\nBuffer 0: must be positive"},
	} {
		c := DefaultConfig()
		c.URL = "nats://nats.nats:4222"
		tt.change(&c)
		got := ""
		if err := c.Validate(); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("got  %q\nwant %q", got, tt.want)
		}
		if strings.Contains(got, "gehe") {
			t.Errorf("%q shows the password", got)
		}
	}
}

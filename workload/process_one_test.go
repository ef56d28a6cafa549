package workload

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestNeedsProcessOne(t *testing.T) {
	for _, tc := range []struct {
		image, command, args string
		want                 string
	}{
		{"lscr.io/linuxserver/webtop:ubuntu", "", "", "image lscr.io/linuxserver/webtop:ubuntu (s6-overlay)"},
		{"linuxserver/webtop", "", "", "image linuxserver/webtop (s6-overlay)"},
		{"registry.example.com:5000/mirror/linuxserver/code-server@sha256:0", "", "--verbose", "image registry.example.com:5000/mirror/linuxserver/code-server@sha256:0 (s6-overlay)"},
		{"registry.access.redhat.com/ubi9/ubi-init:9.4", "", "", "image registry.access.redhat.com/ubi9/ubi-init:9.4 (systemd)"},
		{"registry.access.redhat.com/ubi8-init", "", "", "image registry.access.redhat.com/ubi8-init (systemd)"},
		{"jrei/systemd-debian", "", "", "image jrei/systemd-debian (systemd)"},
		{"lscr.io/linuxserver/webtop", "python3", "agent.py", ""}, // its init does not run then
		{"ghcr.io/dexorder/agent:v1", "", "", ""},
		{"ghcr.io/dexorder/agent:v1", "", "/init", ""}, // an argument of what the image starts
		{"ghcr.io/dexorder/agent:v1", "/init", "", "/init (s6-overlay)"},
		{"ghcr.io/dexorder/agent:v1", "/sbin/init", "", "/sbin/init (the system's init)"},
		{"ghcr.io/dexorder/agent:v1", "/usr/lib/systemd/systemd", "--system", "/usr/lib/systemd/systemd (systemd)"},
		{"ghcr.io/dexorder/agent:v1", "/usr/local/bin/lifecycle-manager exec --listen :8377 --", "/init run", "/init (s6-overlay)"},
		{"ghcr.io/dexorder/agent:v1", "lifecycle-manager exec", "-- python3 agent.py", ""},
		{"ghcr.io/dexorder/agent:v1", "lifecycle-manager exec --", "", ""},
		{"ghcr.io/dexorder/agent:v1", "sh -c", "exec|/sbin/init|--log", "/sbin/init (the system's init)"},
		{"ghcr.io/dexorder/agent:v1", "/bin/bash -ec", "/init", "/init (s6-overlay)"},
		{"ghcr.io/dexorder/agent:v1", "sh", "/start.sh", ""},
		{"ghcr.io/dexorder/agent:v1", "/opt/app/init", "", ""},
		{"ghcr.io/dexorder/agent:v1", "tini -s --", "agent", ""},
		{"ghcr.io/dexorder/agent:v1", "dumb-init", "agent", ""},
		{"", "", "", ""},
	} {
		c := &corev1.Container{Image: tc.image, Command: strings.Fields(tc.command), Args: strings.Fields(tc.args)}
		for i := range c.Args {
			c.Args[i] = strings.ReplaceAll(c.Args[i], "|", " ")
		}
		if got := NeedsProcessOne(c); got != tc.want {
			t.Errorf("%s %s %s: %q, want %q", tc.image, tc.command, tc.args, got, tc.want)
		}
	}
}

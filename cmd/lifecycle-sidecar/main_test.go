package main

import (
	"bytes"
	"errors"
	"flag"
	"strings"
	"testing"
)

func TestCommand(t *testing.T) {
	t.Setenv("NAMESPACE", "agents")
	t.Setenv("DEPLOYMENT_NAME", "alice")
	for args, want := range map[string]string{
		"delete":                   `"delete" is no command; known are run, health, version`,
		"run now":                  `unexpected argument "now"`,
		"--no-such-flag":           "no-such-flag",
		"--log-level=loud":         `--log-level "loud": accepted are debug, info, warn, error`,
		"--exit-status=guess":      `--exit-status: "guess" is not one of auto, pidfd, file`,
		"--kubeconfig=/no/file":    "kubeconfig /no/file",
		"run --exit-status pidfd ": "outside of one use --kubeconfig",
	} {
		err := command(strings.Fields(args), new(bytes.Buffer), new(bytes.Buffer))
		if !errors.As(err, new(usageError)) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want a mistake in usage with %q in it", args, err, want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	for name, tc := range map[string]struct{ namespace, deployment, pid, want string }{
		"no namespace":  {deployment: "alice", want: "NAMESPACE is not set"},
		"no deployment": {namespace: "agents", want: "DEPLOYMENT_NAME is not set"},
		"bad PID":       {namespace: "agents", deployment: "alice", pid: "one", want: `MAIN_CONTAINER_PID is "one"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("NAMESPACE", tc.namespace)
			t.Setenv("DEPLOYMENT_NAME", tc.deployment)
			t.Setenv("MAIN_CONTAINER_PID", tc.pid)
			err := command(nil, new(bytes.Buffer), new(bytes.Buffer))
			if !errors.As(err, new(usageError)) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q in it", err, tc.want)
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	var out bytes.Buffer
	if err := command([]string{"--help"}, &out, new(bytes.Buffer)); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("--help: %v", err)
	}
	for _, want := range []string{"Usage: lifecycle-sidecar", "-exit-status", "-kubeconfig"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("--help does not say %q:\n%s", want, out.String())
		}
	}
	out.Reset()
	if err := command([]string{"version"}, &out, new(bytes.Buffer)); err != nil || out.String() != "dev\n" {
		t.Errorf("version: %q, %v", out.String(), err)
	}
}

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/dexorder/agent-lifecycle/internal/program"
	"github.com/dexorder/agent-lifecycle/webhook"
)

// programName is what the program is called.
const programName = "lifecycle-webhook"

// Values of --certs.
const (
	certsSelfManaged = "self-managed"
	certsMounted     = "mounted"
)

// defaultNamespace is where the server runs unless POD_NAMESPACE or --namespace say otherwise.
const defaultNamespace = "dexorder-system"

// flags are what serve is told on the command line.
type flags struct {
	policy               string
	listen, healthListen string
	kubeconfig           string
	namespace, service   string
	configuration        string
	certs                string
	tlsCert, tlsKey      string
	caSecret             string
	dnsNames             []string
	clientCA             string
	reaper               bool
	reaping              reapingFlags
	drainDelay           time.Duration
	maxBody              int64
	maxInFlight          int
	logs                 program.Log
}

// parseFlags reads serve's command line. What is wrong with it is printed to stderr, all of it.
func parseFlags(args []string, stdout, stderr io.Writer) (*flags, error) {
	f := &flags{namespace: ownNamespace()}
	return f, program.Parse(programName, "serve --policy FILE [flags]", f, args, stdout, stderr)
}

// ownNamespace is where the program runs, or would.
func ownNamespace() string {
	if ns := os.Getenv("POD_NAMESPACE"); ns != "" {
		return ns
	}
	return defaultNamespace
}

// Define implements program.CommandLine.
func (f *flags) Define(set *flag.FlagSet) {
	set.StringVar(&f.policy, "policy", "", "policy `file`, a LifecyclePolicy; followed while the server runs; required")
	set.StringVar(&f.listen, "listen", ":8443", "`address` of /mutate, /policy, /policy/2, /stamp and /validate, over TLS")
	set.StringVar(&f.healthListen, "health-listen", ":8080", "`address` of /healthz, /readyz and /metrics, plain HTTP")
	set.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig `file`; empty: the Pod's own account")
	set.StringVar(&f.namespace, "namespace", f.namespace, "`namespace` of the server's Service and Secret")
	set.StringVar(&f.service, "service", "lifecycle-webhook", "`name` of the server's Service")
	set.StringVar(&f.configuration, "webhook-configuration", "agent-lifecycle",
		"`name` of the MutatingWebhookConfiguration and the ValidatingWebhookConfiguration")
	set.StringVar(&f.certs, "certs", certsSelfManaged,
		"`source` of the serving certificate: "+certsSelfManaged+" or "+certsMounted)
	set.StringVar(&f.tlsCert, "tls-cert", "", "certificate `file`, with --certs "+certsMounted)
	set.StringVar(&f.tlsKey, "tls-key", "", "key `file`, with --certs "+certsMounted)
	set.StringVar(&f.caSecret, "ca-secret", "lifecycle-webhook-ca", "`name` of the Secret with the CA, with --certs "+certsSelfManaged)
	set.Func("dns-name", "further DNS `name` in the serving certificate; may be repeated", func(s string) error {
		if s == "" {
			return errors.New("empty name")
		}
		f.dnsNames = append(f.dnsNames, s)
		return nil
	})
	set.StringVar(&f.clientCA, "client-ca", "",
		"`file` of the authority whose client certificates may ask for admission; empty: no certificate is asked for")
	set.BoolVar(&f.reaper, "reaper", true, "look after what agents leave undone, while this replica holds the Lease")
	set.DurationVar(&f.drainDelay, "drain-delay", webhook.DefaultDrainDelay,
		"how long to serve on after a signal to stop, until all nodes have learned of it")
	set.Int64Var(&f.maxBody, "max-body", webhook.DefaultMaxBody, "largest request in `bytes`")
	set.IntVar(&f.maxInFlight, "max-in-flight", webhook.DefaultMaxInFlight,
		"most `requests` answered at once; larger ones, of more than 128 KiB or of many parts, have half as many places beside them")
	f.reaping.nats.Define(set)
	f.logs.Define(set)
}

// Check implements program.CommandLine.
func (f *flags) Check() []error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if f.policy == "" {
		wrong("--policy is required")
	}
	switch f.certs {
	case certsSelfManaged:
		if f.tlsCert != "" || f.tlsKey != "" {
			wrong("--tls-cert and --tls-key are for --certs %s", certsMounted)
		}
	case certsMounted:
		if f.tlsCert == "" || f.tlsKey == "" {
			wrong("--certs %s requires --tls-cert and --tls-key", certsMounted)
		}
		if len(f.dnsNames) > 0 {
			wrong("--dns-name is for --certs %s", certsSelfManaged)
		}
	default:
		wrong("--certs %q: there are %s and %s", f.certs, certsSelfManaged, certsMounted)
	}
	for name, value := range map[string]string{
		"--namespace": f.namespace, "--service": f.service, "--webhook-configuration": f.configuration,
	} {
		if value == "" {
			wrong("%s must not be empty", name)
		}
	}
	if f.drainDelay < 0 {
		wrong("--drain-delay %s: must not be negative", f.drainDelay)
	}
	if f.maxBody <= 0 {
		wrong("--max-body %d: must be positive", f.maxBody)
	}
	if f.maxInFlight <= 0 {
		wrong("--max-in-flight %d: must be positive", f.maxInFlight)
	}
	errs = append(errs, f.reaping.nats.Check()...)
	return append(errs, f.logs.Check()...)
}

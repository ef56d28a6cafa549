package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dexorder/agent-lifecycle/events"
	"github.com/dexorder/agent-lifecycle/gateway"
	"github.com/dexorder/agent-lifecycle/internal/program"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// programName is what the program is called.
const programName = "agent-gateway"

// flags are what serve is told on the command line.
type flags struct {
	policy, template     string
	listen, healthListen string
	tlsCert, tlsKey      string
	activityKeys         string
	kubeconfig           string
	namespace            string
	audience             string
	allow                []string
	loopback             bool
	userType             string
	wakeTimeout          time.Duration
	drain, grace         time.Duration
	limits               gateway.Limits
	nats                 events.Config
	logs                 program.Log
}

// parseFlags reads serve's command line. What is wrong with it is printed to stderr, all of it.
func parseFlags(args []string, stdout, stderr io.Writer) (*flags, error) {
	f := &flags{limits: gateway.DefaultLimits()}
	if err := program.Parse(programName, "serve --policy FILE --template FILE [flags]", f, args, stdout, stderr); err != nil {
		return nil, err
	}
	return f, nil
}

// Define implements program.CommandLine.
func (f *flags) Define(set *flag.FlagSet) {
	set.StringVar(&f.policy, "policy", "", "policy `file`, a LifecyclePolicy, which says whose storage is deleted; followed while the gateway runs; required")
	set.StringVar(&f.template, "template", "", "`file` of a Deployment, a PersistentVolumeClaim and a Service in YAML, of which agents are made; required")
	set.StringVar(&f.listen, "listen", ":8000", "`address` of the API")
	set.StringVar(&f.healthListen, "health-listen", ":8080", "`address` of /healthz, /readyz and /metrics, plain HTTP")
	set.StringVar(&f.tlsCert, "tls-cert", "", "certificate `file` of the API, followed while the gateway runs; empty: plain HTTP")
	set.StringVar(&f.tlsKey, "tls-key", "", "its key `file`")
	set.StringVar(&f.activityKeys, "activity-keys", "",
		"`directory` of the keys activity.key and activity-*.key, by which agents know that activity comes from here; followed while the gateway "+
			"runs; empty: activity is not signed")
	set.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig `file`; empty: the Pod's own account")
	set.StringVar(&f.namespace, "agents-namespace", "dexorder-agents", "`namespace` of the agents")
	set.StringVar(&f.audience, "audience", "agent-gateway", "`audience` that callers' tokens must be for")
	set.Func("allow", "`name` of somebody who may call, such as system:serviceaccount:NAMESPACE:NAME; may be repeated", func(s string) error {
		if s == "" {
			return errors.New("empty name")
		}
		f.allow = append(f.allow, s)
		return nil
	})
	set.BoolVar(&f.loopback, "loopback-without-token", false, "let callers on the same machine in without a token; for development")
	set.StringVar(&f.userType, "default-user-type", string(lifecycle.Free), "user `type` of agents of which nobody says one")
	set.DurationVar(&f.wakeTimeout, "wake-timeout", 90*time.Second, "how long a request waits for its agent")
	set.DurationVar(&f.drain, "drain", 5*time.Second, "how long to serve on after a signal to stop, until all have learned of it")
	set.DurationVar(&f.grace, "grace", 30*time.Second, "how long after that connections may stand")
	rates(set, "user-rate", f.limits.Requests, "bound on requests of one user")
	rates(set, "wake-rate", f.limits.Wakes, "bound on agents made for all users of a type together")
	set.IntVar(&f.limits.Held, "max-held", f.limits.Held, "most `requests` that wait for their agents at once")
	set.IntVar(&f.limits.Streams, "max-streams", f.limits.Streams, "most open `streams` of events")
	set.Int64Var(&f.limits.Body, "max-body", f.limits.Body, "longest body that is delivered to an agent, in `bytes`")
	f.nats.Define(set)
	f.logs.Define(set)
}

// rates defines a flag that says a rate for one user type.
func rates(set *flag.FlagSet, name string, into map[lifecycle.UserType]gateway.Rate, what string) {
	var defaults []string
	for _, userType := range lifecycle.UserTypes() {
		defaults = append(defaults, fmt.Sprintf("%s=%g,%d", userType, into[userType].PerSecond, into[userType].Burst))
	}
	set.Func(name, what+", as `TYPE=PER_SECOND,BURST`; may be repeated (default "+strings.Join(defaults, " ")+")", func(s string) error {
		userType, value, _ := strings.Cut(s, "=")
		t, err := lifecycle.ParseUserType(userType)
		if err != nil {
			return err
		}
		perSecond, burst, _ := strings.Cut(value, ",")
		var r gateway.Rate
		var burstErr error
		r.PerSecond, err = strconv.ParseFloat(perSecond, 64)
		r.Burst, burstErr = strconv.Atoi(burst)
		if err != nil || burstErr != nil || !(r.PerSecond > 0) || r.Burst < 1 {
			return errors.New("must be TYPE=PER_SECOND,BURST, both positive, such as free=20,200")
		}
		into[t] = r
		return nil
	})
}

// Check implements program.CommandLine.
func (f *flags) Check() []error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	required := map[string]string{
		"--policy": f.policy, "--template": f.template, "--agents-namespace": f.namespace, "--audience": f.audience,
	}
	for _, name := range slices.Sorted(maps.Keys(required)) {
		if required[name] == "" {
			wrong("%s is required", name)
		}
	}
	if (f.tlsCert == "") != (f.tlsKey == "") {
		wrong("--tls-cert and --tls-key: both or neither")
	}
	if _, err := lifecycle.ParseUserType(f.userType); err != nil {
		wrong("--default-user-type: %w", err)
	}
	if f.wakeTimeout <= 0 {
		wrong("--wake-timeout %s: must be positive", f.wakeTimeout)
	}
	if f.drain < 0 || f.grace < 0 {
		wrong("--drain %s, --grace %s: must not be negative", f.drain, f.grace)
	}
	if f.limits.Held < 1 || f.limits.Streams < 1 || f.limits.Body < 1 {
		wrong("--max-held, --max-streams and --max-body must be positive")
	}
	errs = append(errs, f.nats.Check()...)
	return append(errs, f.logs.Check()...)
}

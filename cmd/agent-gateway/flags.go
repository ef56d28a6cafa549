package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
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
	opaqueTokens         bool
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
	set.BoolVar(&f.loopback, "loopback-without-token", false, "let callers on the same machine in without a token; for development, and refused in a Pod")
	set.BoolVar(&f.opaqueTokens, "opaque-tokens", false,
		"ask the API server about tokens too that are no JWT for the audience, as an authentication webhook or an OIDC issuer gives out")
	set.StringVar(&f.userType, "default-user-type", string(lifecycle.Free), "user `type` of agents of which nobody says one")
	set.DurationVar(&f.wakeTimeout, "wake-timeout", 90*time.Second, "how long a request waits for its agent")
	set.DurationVar(&f.drain, "drain", 5*time.Second, "how long to serve on after a signal to stop, until all have learned of it")
	set.DurationVar(&f.grace, "grace", 30*time.Second, "how long after that connections may stand")
	rates(set, "user-rate", f.limits.Requests, "bound on requests of one user")
	rates(set, "wake-rate", f.limits.Wakes, "bound on agents made for all users of a type together")
	set.IntVar(&f.limits.Held, "max-held", f.limits.Held, "most `requests` that wait for their agents at once")
	set.IntVar(&f.limits.Streams, "max-streams", f.limits.Streams, "most open `streams` of events")
	numbers(set, "user-connections", f.limits.Connections, "most requests of one user that are under way at once, streams and upgrades included")
	set.IntVar(&f.limits.Connected, "max-connections", f.limits.Connected, "most `requests` of all users that are under way at once")
	set.IntVar(&f.limits.Listened, "max-listened", f.limits.Listened, "most `agents` that are listened to at once, at some 25 KiB each")
	set.DurationVar(&f.limits.HeaderTimeout, "agent-header-timeout", f.limits.HeaderTimeout,
		"how long an agent may take to begin its answer to a user's request; 0s is no bound")
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

// numbers defines a flag that says a number for one user type.
func numbers(set *flag.FlagSet, name string, into map[lifecycle.UserType]int, what string) {
	var defaults []string
	for _, userType := range lifecycle.UserTypes() {
		defaults = append(defaults, fmt.Sprintf("%s=%d", userType, into[userType]))
	}
	set.Func(name, what+", as `TYPE=NUMBER`; may be repeated (default "+strings.Join(defaults, " ")+")", func(s string) error {
		userType, value, _ := strings.Cut(s, "=")
		t, err := lifecycle.ParseUserType(userType)
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 {
			return errors.New("must be TYPE=NUMBER, the number positive, such as free=100")
		}
		into[t] = n
		return nil
	})
}

// podVariables are set in every container: the first by the kubelet, the second by the manifests.
var podVariables = []string{"KUBERNETES_SERVICE_HOST", "POD_NAMESPACE"}

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
	l := &f.limits
	if l.Held < 1 || l.Streams < 1 || l.Body < 1 || l.Connected < 1 || l.Listened < 1 {
		wrong("--max-held, --max-streams, --max-connections, --max-listened and --max-body must be positive")
	}
	if l.HeaderTimeout < 0 {
		wrong("--agent-header-timeout %s: must not be negative", l.HeaderTimeout)
	}
	for _, name := range podVariables {
		if f.loopback && os.Getenv(name) != "" {
			wrong("--loopback-without-token: is refused in a Pod, where a mesh's proxy and kubectl port-forward call from the same machine for "+
				"anybody; let callers in by --allow (this is taken for a Pod since %s is set)", name)
			break
		}
	}
	errs = append(errs, f.nats.Check()...)
	return append(errs, f.logs.Check()...)
}

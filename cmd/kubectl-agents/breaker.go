package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	clientcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/dexorder/agent-lifecycle/breaker"
	"github.com/dexorder/agent-lifecycle/internal/program"
)

const breakerHelp = `While the breaker is open nothing is deleted for being idle or forgotten in any namespace: no agent deletes itself, and no reaper
deletes an agent, a claim, a leftover, a namespace or an archive. It opens by itself when more agents want to delete themselves than the
policy allows: a bad image that makes every agent end with 42 would otherwise erase the fleet. By hand it is opened when something is
deleted that must not be. Nothing is lost meanwhile: what wants to go waits.

  kubectl agents breaker            what it is now: exit 0: closed, 1: open, 2: could not be found out
  kubectl agents breaker status     the same
  kubectl agents breaker open       stop every deletion, within a second, until an operator releases it; needs --reason
  kubectl agents breaker release    close it again, with a full allowance

Where an operator has opened it already, open changes nothing and says since when, by whom and why. It takes the right to update the
ConfigMap lifecycle-breaker, as release does: the Role lifecycle-breaker-operator has it.

Examples:
  kubectl agents breaker open --reason "agents of image v2 stop while they work"
  kubectl agents breaker status -o json
  kubectl agents breaker release
`

// What the verb breaker is asked to do.
const (
	breakerStatus  = "status"
	breakerOpen    = "open"
	breakerRelease = "release"
)

var breakerVerb = verb{
	name:    "breaker",
	summary: "see whether anything may be deleted, stop every deletion, and let them go on",
	help:    breakerHelp,
	actions: []string{breakerStatus, breakerOpen, breakerRelease},
	usual:   breakerStatus,
	bind: func(flags *pflag.FlagSet) func(streams) int {
		b := &breakerFlags{}
		b.clusterFlags.bind(flags)
		flags.StringVarP(&b.output, "output", "o", "text", "text or json (status)")
		flags.StringVar(&b.reason, "reason", "", fmt.Sprintf(
			"why nothing may be deleted, in one line of at most %d characters; agents and people who wait are told (open; required)", breaker.MaxReason))
		return func(s streams) int {
			b.reasoned = flags.Changed("reason")
			return b.run(s, cmp.Or(flags.Arg(0), breakerStatus))
		}
	},
}

// clusterFlags say which cluster is meant, as kubectl's flags do.
type clusterFlags struct{ kubeconfig, context, namespace string }

func (c *clusterFlags) bind(flags *pflag.FlagSet) {
	c.bindFor(flags, "dexorder-system", "where the lifecycle webhook is installed")
}

// bindFor is bind for a verb that means another namespace than the system's.
func (c *clusterFlags) bindFor(flags *pflag.FlagSet, namespace, usage string) {
	flags.StringVar(&c.kubeconfig, "kubeconfig", "", "the kubeconfig file; default: kubectl's")
	flags.StringVar(&c.context, "context", "", "the kubeconfig's context; default: the current one")
	flags.StringVarP(&c.namespace, "namespace", "n", namespace, usage)
}

func (c *clusterFlags) config() (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.kubeconfig
	overrides := &clientcmd.ConfigOverrides{CurrentContext: c.context}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides).ClientConfig()
	if err != nil {
		return nil, err
	}
	config.UserAgent = "kubectl-agents/" + program.Version(version)
	return config, nil
}

// clusterTimeout bounds what a verb asks of the cluster.
const clusterTimeout = 30 * time.Second

type breakerFlags struct {
	clusterFlags
	output, reason string

	// reasoned says that --reason was given.
	reasoned bool
}

// check says what is wrong with the flags for an action; nil if nothing is.
func (b *breakerFlags) check(action string) error {
	if b.output != "text" && b.output != "json" {
		return fmt.Errorf("--output %q: accepted are text and json", b.output)
	}
	switch {
	case action != breakerOpen && b.reasoned:
		return fmt.Errorf("--reason is for kubectl agents breaker %s", breakerOpen)
	case action == breakerOpen && !b.reasoned:
		return errors.New(`kubectl agents breaker open: say why nothing may be deleted, with --reason "…"`)
	case action == breakerOpen:
		if err := breaker.CheckReason(b.reason); err != nil {
			return fmt.Errorf("--reason: %w", err)
		}
	}
	return nil
}

func (b *breakerFlags) run(s streams, action string) int {
	s = s.forPeople()
	if err := b.check(action); err != nil {
		s.fail("%v", err)
		return exitNotUnderstood
	}
	config, err := b.config()
	if err != nil {
		s.fail("%v", err)
		return exitNotUnderstood
	}
	core, err := clientcorev1.NewForConfig(config)
	if err != nil {
		s.fail("%v", err)
		return exitNotUnderstood
	}
	ctx, cancel := context.WithTimeout(context.Background(), clusterTimeout)
	defer cancel()
	maps := core.ConfigMaps(b.namespace)
	switch action {
	case breakerOpen:
		return b.open(ctx, s, maps, userName(ctx, config))
	case breakerRelease:
		return b.release(ctx, s, maps, userName(ctx, config))
	}
	state, err := breaker.Read(ctx, maps)
	if err != nil {
		return b.unreadable(s, err)
	}
	b.print(s, &state)
	if state.Open {
		return exitDenied
	}
	return exitOK
}

func (b *breakerFlags) print(s streams, state *breaker.State) {
	if b.output == "json" {
		encoder := json.NewEncoder(s.out)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(state) // it has only fields that can be encoded
		return
	}
	switch {
	case state.Open:
		fmt.Fprintf(s.out, "open since %s\nNothing is deleted until an operator says so: kubectl agents breaker release\n", opening(state))
	case state.ReleasedBy == "" && !state.Since.IsZero():
		fmt.Fprintf(s.out, "closed by itself at %s: deletions that had opened it did not come about\n", state.Since.Local().Format(time.RFC3339))
	case state.ReleasedBy != "":
		fmt.Fprintf(s.out, "closed; released by %s at %s\n", state.ReleasedBy, state.Since.Local().Format(time.RFC3339))
	default:
		fmt.Fprintln(s.out, "closed")
	}
}

// opening says since when a breaker is open, by whom and why.
func opening(state *breaker.State) string {
	since := state.Since.Local().Format(time.RFC3339)
	if state.OpenedBy == "" {
		return since + ": " + state.Reason
	}
	return fmt.Sprintf("%s, opened by %s: %s", since, state.OpenedBy, state.Reason)
}

// unreadable says why nothing is known. Where there is no breaker, another namespace may have been meant.
func (b *breakerFlags) unreadable(s streams, err error) int {
	if apierrors.IsNotFound(err) {
		err = fmt.Errorf("there is no ConfigMap %q in namespace %q, or no such namespace: say where the lifecycle webhook is installed, with -n;"+
			" if it is there, apply its manifests again", breaker.Name, b.namespace)
	}
	s.fail("%v", err)
	return exitNotUnderstood
}

func (b *breakerFlags) open(ctx context.Context, s streams, maps breaker.ConfigMaps, by string) int {
	before, after, err := breaker.Open(ctx, maps, by, b.reason, time.Now())
	switch {
	case err != nil:
		return b.unreadable(s, err)
	case before.OpenedBy != "":
		fmt.Fprintf(s.out, "it was open already, and nothing was changed: since %s\n", opening(&before))
		return exitOK
	case before.Open:
		fmt.Fprintf(s.out, "it had opened by itself at %s; from now on it is open by your hand\n", before.Since.Local().Format(time.RFC3339))
	default:
		fmt.Fprintf(s.out, "opened by %s: %s\n", after.OpenedBy, after.Reason)
	}
	fmt.Fprintln(s.out, "Nothing is deleted until an operator says so: kubectl agents breaker release")
	return exitOK
}

func (b *breakerFlags) release(ctx context.Context, s streams, maps breaker.ConfigMaps, by string) int {
	before, _, err := breaker.Release(ctx, maps, by, time.Now())
	if err != nil {
		return b.unreadable(s, err)
	}
	if !before.Open {
		fmt.Fprintln(s.out, "it was closed; nothing was changed")
		return exitOK
	}
	fmt.Fprintf(s.out, "released; it was open since %s\nAgents that wait are deleted within a minute.\n", opening(&before))
	return exitOK
}

// userName is who the API server takes the caller for. It goes into the record; where it cannot be found out, that says so.
func userName(ctx context.Context, config *rest.Config) string {
	const unknown = "somebody unknown"
	client, err := authenticationclient.NewForConfig(config)
	if err != nil {
		return unknown
	}
	review, err := client.SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return unknown
	}
	return review.Status.UserInfo.Username
}

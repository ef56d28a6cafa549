package main

import (
	"context"
	"encoding/json"
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

const breakerHelp = `More agents than the policy allows wanted to delete themselves: then the breaker opens, and none is deleted until
somebody has looked and released it. A bad image that makes every agent end with 42 would otherwise erase the fleet.

  kubectl agents breaker status     exit 0: closed, 1: open, 2: could not be found out
  kubectl agents breaker release    close it again, with a full allowance
`

var breakerVerb = verb{
	name:    "breaker",
	summary: "see whether agents may delete themselves, and let them again",
	help:    breakerHelp,
	actions: []string{"status", "release"},
	bind: func(flags *pflag.FlagSet) func(streams) int {
		b := &breakerFlags{}
		b.clusterFlags.bind(flags)
		flags.StringVarP(&b.output, "output", "o", "text", "text or json (status)")
		return func(s streams) int { return b.run(s, flags.Arg(0)) }
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
	output string
}

func (b *breakerFlags) run(s streams, action string) int {
	s = s.forPeople()
	if b.output != "text" && b.output != "json" {
		s.fail("--output %q: accepted are text and json", b.output)
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
	if action == "release" {
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
		fmt.Fprintf(s.out, "open since %s: %s\nNo agent deletes itself until you say so: kubectl agents breaker release\n",
			state.Since.Local().Format(time.RFC3339), state.Reason)
	case state.ReleasedBy != "":
		fmt.Fprintf(s.out, "closed; released by %s at %s\n", state.ReleasedBy, state.Since.Local().Format(time.RFC3339))
	default:
		fmt.Fprintln(s.out, "closed")
	}
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

func (b *breakerFlags) release(ctx context.Context, s streams, maps breaker.ConfigMaps, by string) int {
	before, _, err := breaker.Release(ctx, maps, by, time.Now())
	if err != nil {
		return b.unreadable(s, err)
	}
	if !before.Open {
		fmt.Fprintln(s.out, "it was closed; nothing was changed")
		return exitOK
	}
	fmt.Fprintf(s.out, "released; it was open since %s: %s\nAgents that wait are deleted within a minute.\n",
		before.Since.Local().Format(time.RFC3339), before.Reason)
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

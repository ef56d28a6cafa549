package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"

	"github.com/dexorder/agent-lifecycle/fleet"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// fleetFlags say which agents of which cluster are meant.
type fleetFlags struct {
	clusterFlags

	// agents is the namespace of the agents, empty for all; the embedded one is the system's.
	agents string
	all    bool
}

func (f *fleetFlags) bind(flags *pflag.FlagSet) {
	flags.StringVarP(&f.agents, "namespace", "n", "", "`NAMESPACE` of the agents; default: every one that the policy covers")
	flags.BoolVarP(&f.all, "all-namespaces", "A", false, "every namespace that the policy covers, which is the default")
	flags.StringVar(&f.clusterFlags.namespace, "system-namespace", "dexorder-system", "`NAMESPACE` where the system is installed")
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "the kubeconfig file; default: kubectl's")
	flags.StringVar(&f.context, "context", "", "the kubeconfig's context; default: the current one")
}

// connect returns the cluster and what is in force there. judge is nil where nothing is.
func (f *fleetFlags) connect(ctx context.Context) (cluster *fleet.Cluster, judge *fleet.Judge, hash string, err error) {
	if f.all && f.agents != "" {
		return nil, nil, "", errors.New("--namespace and --all-namespaces say different things; accepted is one of them")
	}
	config, err := f.unthrottled()
	if err != nil {
		return nil, nil, "", err
	}
	if cluster, err = fleet.Connect(config, f.clusterFlags.namespace); err != nil {
		return nil, nil, "", err
	}
	data, err := cluster.Policy(ctx)
	if err != nil {
		return cluster, nil, "", err
	}
	rules, err := cluster.KeepsRestartRules()
	if err != nil {
		return nil, nil, "", err
	}
	if judge, err = fleet.NewJudge(data, rules); err != nil {
		return nil, nil, "", cluster.UnreadablePolicy(ctx, indented(err.Error()))
	}
	// An error counts as an empty record; audit tells of it.
	record, _ := cluster.RuleTimes(ctx)
	judge.Hold(record, time.Now(), true)
	return cluster, judge, v1alpha1.Hash(data), f.checkCovered(judge)
}

// unthrottled returns the config of a client that reads a whole fleet.
func (f *fleetFlags) unthrottled() (*rest.Config, error) {
	config, err := f.config()
	if err != nil {
		return nil, err
	}
	config.QPS = -1 // the API server sees to it that nobody else has to wait
	config.WarningHandler = rest.NoWarnings{}
	return config, nil
}

func (f *fleetFlags) checkCovered(judge *fleet.Judge) error {
	if f.agents != "" && !judge.Covers(f.agents) {
		return fmt.Errorf("--namespace %q is not covered by the policy; covered are %s", f.agents, judge.Covered())
	}
	return nil
}

// untilInterrupted returns a context that ends with the first signal to stop. The second one ends the program.
func untilInterrupted() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

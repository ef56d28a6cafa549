package main

import (
	"context"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"

	"github.com/dexorder/agent-lifecycle/provision"
)

const apiServerHelp = `The network policies of user agents name the API server by its addresses, which differ from one cluster to the next. This asks the
cluster, and prints a kustomize component that puts them there: those of its Service, and those behind it, since network plugins
differ in which of the two they look at. Public ones are taken out of the way to the internet. Where the component system-isolation
is used too, its policies of gateway and reaper get the same addresses. Nothing is changed in the cluster.

List it after manifests/components/isolation and system-isolation. Where the addresses of the API server change, print it again.

Examples:
  mkdir -p api-server
  kubectl agents api-server > api-server/kustomization.yaml

Exit codes:
  0  printed
  2  something is not understood, or could not be found out
`

var apiServerVerb = verb{
	name:    "api-server",
	summary: "print where the API server is, for the network policies of user agents",
	help:    apiServerHelp,
	bind: func(flags *pflag.FlagSet) func(streams) int {
		c := &clusterFlags{}
		c.bindFor(flags, "dexorder-agents", "where the user agents are")
		return c.printAPIServer
	},
}

func (c *clusterFlags) printAPIServer(s streams) int {
	config, err := c.config()
	if err != nil {
		return s.exit(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return s.exit(err)
	}
	ctx, stop := untilInterrupted()
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, clusterTimeout)
	defer cancel()
	server, err := provision.FindAPIServer(ctx, client)
	if err != nil {
		return s.exit(err)
	}
	component, err := server.Component(c.namespace)
	if err == nil {
		_, err = s.out.Write(component)
	}
	return s.exit(err)
}

package main

import (
	"context"

	"github.com/dexorder/agent-lifecycle/fleet"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// policyInForce reads it from the cluster. The error is fleet.ErrNotInstalled if there is none.
func (c *clusterFlags) policyInForce(ctx context.Context) (*v1alpha1.LifecyclePolicy, error) {
	config, err := c.config()
	if err != nil {
		return nil, err
	}
	cluster, err := fleet.Connect(config, c.namespace)
	if err != nil {
		return nil, err
	}
	data, err := cluster.Policy(ctx)
	if err != nil {
		return nil, err
	}
	file, err := v1alpha1.Decode(data)
	if err != nil {
		return nil, cluster.UnreadablePolicy(ctx, indented(err.Error()))
	}
	return file, nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/dexorder/agent-lifecycle/bench"
)

// settle is how long a variant may take from its registration to its work.
const settle = 30 * time.Second

// await waits until a variant does what it is said to do, no more and no less, as dry runs show.
func (b *benchmark) await(ctx context.Context, v *variant) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, settle, true, func(ctx context.Context) (bool, error) {
		last = b.check(ctx, v)
		return last == nil, nil
	})
	return errors.Join(err, last)
}

func (b *benchmark) check(ctx context.Context, v *variant) error {
	d, err := bench.Deployment("agent-check")
	if err != nil {
		return err
	}
	dryRun, client := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}, b.client.AppsV1().Deployments(v.namespace)
	stored, err := client.Create(ctx, d, dryRun)
	if err != nil {
		return fmt.Errorf("the benchmark's Deployment is refused: %w", err)
	}
	if injected := len(stored.Spec.Template.Spec.Containers) == 2; injected != v.injects {
		return fmt.Errorf("sidecar injected: %v", injected)
	}
	d.Spec.Template.Spec.Containers[0].Image = "docker.io/library/busybox:1"
	if _, err := client.Create(ctx, d, dryRun); (err != nil) != v.refuses {
		return fmt.Errorf("creating an agent of a foreign image gives: %w", err)
	}
	return nil
}

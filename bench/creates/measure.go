package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/dexorder/agent-lifecycle/bench"
)

// batch is how many rounds go by between two clean-ups: the store stays small, and what a clean-up stirs up is not
// measured.
const batch = 50

// warmUp is how many rounds go unmeasured: connections, caches and code paths have been used by then.
const warmUp = batch

// measure fills the results of every variant.
func (b *benchmark) measure(ctx context.Context, rounds int) error {
	random := rand.New(rand.NewPCG(1, 2)) // the same order in every run
	for first := -warmUp; first < rounds; first += batch {
		if err := b.measureBatch(ctx, first, random); err != nil {
			return err
		}
		if err := b.measureServers(ctx, first >= 0); err != nil {
			return err
		}
		if err := b.cleanUp(ctx); err != nil {
			return fmt.Errorf("cleaning up: %w", err)
		}
	}
	for _, v := range b.variants {
		if v.server == 0 {
			continue
		}
		var err error
		if v.memory, err = v.server.memory(); err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
	}
	return nil
}

// measureBatch takes the time of creates, every round all variants in another order.
func (b *benchmark) measureBatch(ctx context.Context, first int, random *rand.Rand) error {
	for round := first; round < first+batch; round++ {
		for _, i := range random.Perm(len(b.variants)) {
			if err := b.create(ctx, b.variants[i], round); err != nil {
				return fmt.Errorf("%s: %w", b.variants[i].name, err)
			}
		}
	}
	return nil
}

// measureServers takes the CPU time of each variant's server for a batch of creates that are its own: ours also
// watches Deployments, and would be charged for those of all the others.
func (b *benchmark) measureServers(ctx context.Context, keep bool) error {
	for _, v := range b.variants {
		if v.server == 0 {
			continue
		}
		time.Sleep(calm)
		before, err := v.server.cpu()
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		client := b.client.AppsV1().Deployments(v.namespace)
		for n := range batch {
			d, err := bench.Deployment(fmt.Sprintf("alone-%05d", n))
			if err != nil {
				return err
			}
			if _, err := client.Create(ctx, d, metav1.CreateOptions{}); err != nil {
				return fmt.Errorf("%s: %w", v.name, err)
			}
		}
		time.Sleep(calm) // What the watch brings afterwards is part of the price.
		after, err := v.server.cpu()
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		if keep {
			v.serverCPU = append(v.serverCPU, after-before)
		}
	}
	return nil
}

// create measures one create. Negative rounds are warm-up.
func (b *benchmark) create(ctx context.Context, v *variant, round int) error {
	d, err := bench.Deployment(fmt.Sprintf("agent-%05d", round+warmUp))
	if err != nil {
		return err
	}
	client := b.client.AppsV1().Deployments(v.namespace)
	cpuBefore, err := b.apiServer.cpu()
	if err != nil {
		return err
	}
	began := time.Now()
	_, err = client.Create(ctx, d, metav1.CreateOptions{})
	waited := time.Since(began)
	if err != nil {
		return err
	}
	cpuAfter, err := b.apiServer.cpu()
	if err != nil {
		return err
	}
	if round >= 0 {
		v.waited = append(v.waited, waited)
		v.apiCPU += cpuAfter - cpuBefore
	}
	return nil
}

// calm is how long the machine is left alone: watches have delivered everything by then.
const calm = 300 * time.Millisecond

func (b *benchmark) cleanUp(ctx context.Context) error {
	for _, v := range b.variants {
		client := b.client.AppsV1().Deployments(v.namespace)
		if err := client.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
			return err
		}
		err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, settle, true, func(ctx context.Context) (bool, error) {
			left, err := client.List(ctx, metav1.ListOptions{Limit: 1})
			return err == nil && len(left.Items) == 0, err
		})
		if err != nil {
			return fmt.Errorf("namespace %s: %w", v.namespace, err)
		}
	}
	time.Sleep(calm)
	return nil
}

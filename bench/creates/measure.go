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

func (b *benchmark) measureBatch(ctx context.Context, first int, random *rand.Rand) error {
	before, err := b.serverCPU()
	if err != nil {
		return err
	}
	for round := first; round < first+batch; round++ {
		for _, i := range random.Perm(len(b.variants)) {
			if err := b.create(ctx, b.variants[i], round); err != nil {
				return fmt.Errorf("%s: %w", b.variants[i].name, err)
			}
		}
	}
	after, err := b.serverCPU()
	if err != nil {
		return err
	}
	if first < 0 {
		return nil
	}
	for i, v := range b.variants {
		if v.server != 0 {
			v.serverCPU = append(v.serverCPU, after[i]-before[i])
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

// serverCPU is what each variant's server has used so far.
func (b *benchmark) serverCPU() ([]time.Duration, error) {
	used := make([]time.Duration, len(b.variants))
	for i, v := range b.variants {
		if v.server == 0 {
			continue
		}
		var err error
		if used[i], err = v.server.cpu(); err != nil {
			return nil, fmt.Errorf("%s: %w", v.name, err)
		}
	}
	return used, nil
}

// calm is how long the machine is left alone after a clean-up: watches have delivered it by then.
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

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/bench"
	"github.com/dexorder/agent-lifecycle/internal/installation"
)

// clientTimeout is how long a client waits for one create, longer than the API server waits for both webhooks.
const clientTimeout = 15 * time.Second

// creations are what a client has seen.
type creations struct {
	waited  []time.Duration // of each create, refused or not; sorted
	refused []error
}

// create creates agents at a fixed rate, whatever becomes of those before: a slow answer does not spare the server the next request.
func (c *cluster) create(ctx context.Context, o *options, length time.Duration, name string) (creations, error) {
	var (
		mu     sync.Mutex
		result creations
		group  sync.WaitGroup
	)
	client := c.client.AppsV1().Deployments(installation.AgentsNamespace)
	ticks := time.NewTicker(time.Duration(float64(time.Second) / o.creates))
	defer ticks.Stop()
	ends := time.Now().Add(length)
	for n := 0; time.Now().Before(ends); n++ {
		d, err := bench.Deployment(fmt.Sprintf("agent-%s-%05d", name, n))
		if err != nil {
			return creations{}, err
		}
		var options metav1.CreateOptions
		if n%2 == 0 {
			options.DryRun = []string{metav1.DryRunAll}
		}
		group.Go(func() {
			began := time.Now()
			ctx, cancel := context.WithTimeout(ctx, clientTimeout)
			defer cancel()
			_, err := client.Create(ctx, d, options)
			waited := time.Since(began)
			mu.Lock()
			defer mu.Unlock()
			result.waited = append(result.waited, waited)
			if err != nil {
				result.refused = append(result.refused, err)
			}
		})
		select {
		case <-ctx.Done():
			group.Wait()
			return creations{}, errors.New("interrupted")
		case <-ticks.C:
		}
	}
	group.Wait()
	slices.Sort(result.waited)
	return result, nil
}

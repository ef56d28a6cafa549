package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// bystander is somebody with nothing to do with agents, who asks for ConfigMaps ten times a second: to get one, to list twenty, to
// create one, in turn. A request that is slow keeps none from being sent in time.
type bystander struct {
	read, write clientcorev1.ConfigMapInterface

	mu      sync.Mutex
	waits   [len(bystanderVerbs)][]time.Duration
	failed  int
	problem error
}

// bystanderVerbs are what it asks for in turn.
var bystanderVerbs = [...]string{"get", "list", "create"}

const (
	bystanderPeriod = 100 * time.Millisecond
	bystanderLists  = 20
)

func (c *cluster) newBystander(ctx context.Context) (*bystander, error) {
	for _, name := range []string{"bystander", "bystander-new"} {
		if err := c.namespace(ctx, name); err != nil {
			return nil, err
		}
	}
	config, err := c.account(ctx, "bystander", "client", true)
	if err != nil {
		return nil, err
	}
	client, err := protobufClient(config)
	if err != nil {
		return nil, err
	}
	b := &bystander{read: client.CoreV1().ConfigMaps("bystander"), write: client.CoreV1().ConfigMaps("bystander-new")}
	for i := range bystanderLists {
		if _, err := b.read.Create(ctx, configMap(numbered("map-", i)), metav1.CreateOptions{}); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, GenerateName: "map-"}, Data: map[string]string{"key": "value"}}
}

// run asks until ctx ends.
func (b *bystander) run(ctx context.Context) {
	tick := time.NewTicker(bystanderPeriod)
	defer tick.Stop()
	var all sync.WaitGroup
	defer all.Wait()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		all.Go(func() { b.ask(n) })
	}
}

func (b *bystander) ask(n int) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	began := time.Now()
	var err error
	verb := n % len(bystanderVerbs)
	switch bystanderVerbs[verb] {
	case "get":
		_, err = b.read.Get(ctx, numbered("map-", n%bystanderLists), metav1.GetOptions{})
	case "list":
		_, err = b.read.List(ctx, metav1.ListOptions{})
	default:
		_, err = b.write.Create(ctx, configMap(""), metav1.CreateOptions{})
	}
	waited := time.Since(began)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waits[verb] = append(b.waits[verb], waited)
	if err != nil {
		b.failed++
		b.problem = err
	}
}

// waited is how long requests took in one stretch: all of them, and by verb.
type waited struct {
	quantiles
	verbs [len(bystanderVerbs)]quantiles
}

type quantiles struct {
	requests      int
	p50, p99, max time.Duration
}

func quantilesOf(waits []time.Duration) quantiles {
	if len(waits) == 0 {
		return quantiles{}
	}
	slices.Sort(waits)
	at := func(p int) time.Duration { return waits[max((len(waits)*p+99)/100, 1)-1] }
	return quantiles{len(waits), at(50), at(99), waits[len(waits)-1]}
}

// take returns what has been measured since it was last called.
func (b *bystander) take() (waited, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed > 0 {
		return waited{}, fmt.Errorf("%d requests of the bystander failed, the last: %w", b.failed, b.problem)
	}
	w := waited{quantiles: quantilesOf(slices.Concat(b.waits[:]...))}
	for verb := range b.waits {
		w.verbs[verb] = quantilesOf(b.waits[verb])
		b.waits[verb] = nil
	}
	return w, nil
}

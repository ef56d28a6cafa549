package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	clientcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/dexorder/agent-lifecycle/breaker"
	"github.com/dexorder/agent-lifecycle/reaper"
	"github.com/dexorder/agent-lifecycle/webhook"
)

// reapingFlags are what the reaper is told, wherever it runs.
type reapingFlags struct {
	dryRun bool
}

func (f *reapingFlags) define(*flag.FlagSet) {}

// reaperParts are what a reaper is made of.
type reaperParts struct {
	config    *rest.Config
	core      clientcorev1.CoreV1Interface
	namespace string
	policies  *webhook.PolicyFile
	breaker   *breaker.Breaker
	registry  prometheus.Registerer
	log       *slog.Logger
}

// newReaper returns a reaper, and the parts that have to run beside it.
func newReaper(f *reapingFlags, p reaperParts) (*reaper.Reaper, []component, error) {
	log := p.log.With("part", "reaper")
	kubernetes := newKubernetesEvents(p.core, log)
	r, err := reaper.New(reaper.Options{
		Config: p.config, Namespace: p.namespace, Identity: instance() + "-" + strconv.Itoa(os.Getpid()),
		Policy: p.policies, Breaker: p.breaker, Announcer: kubernetes, Archiver: noArchive{}, DryRun: f.dryRun,
		Now: time.Now, Metrics: reaper.NewMetrics(p.registry), Logger: log,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("reaper: %w", err)
	}
	return r, []component{kubernetes}, nil
}

// noArchive keeps nothing.
type noArchive struct{}

func (noArchive) Save(context.Context, *corev1.Namespace, time.Duration, bool) error { return nil }

func (noArchive) Release(context.Context) error { return nil }

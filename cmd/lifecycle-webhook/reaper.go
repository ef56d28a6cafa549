package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	clientcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/dexorder/agent-lifecycle/archive"
	"github.com/dexorder/agent-lifecycle/breaker"
	"github.com/dexorder/agent-lifecycle/events"
	"github.com/dexorder/agent-lifecycle/internal/program"
	"github.com/dexorder/agent-lifecycle/reaper"
	"github.com/dexorder/agent-lifecycle/webhook"
)

// reapingFlags are what the reaper is told, wherever it runs.
type reapingFlags struct {
	dryRun bool
	nats   events.Config
}

// reaperParts are what a reaper is made of.
type reaperParts struct {
	config    *rest.Config
	core      clientcorev1.CoreV1Interface
	namespace string
	policies  *webhook.PolicyFile
	breaker   breakerParts
	registry  prometheus.Registerer
	log       *slog.Logger
}

// newReaper returns a reaper, and the parts that have to run beside it.
func newReaper(f *reapingFlags, p reaperParts) (*reaper.Reaper, []program.Component, error) {
	log := p.log.With("part", "reaper")
	bounded := rest.CopyConfig(p.config)
	bounded.Timeout = reaper.RequestTimeout
	reaper.GuardDeletes(bounded, p.breaker)
	clients, err := archive.ClientsFor(bounded)
	if err != nil {
		return nil, nil, fmt.Errorf("archive: %w", err)
	}
	kubernetes := newKubernetesEvents(p.core)
	tell := announcers{kubernetes}
	parts := []program.Component{kubernetes}
	var r *reaper.Reaper
	nats, err := newPublished(f.nats, func() []reaper.Event { return r.States() }, p.registry, log)
	if err != nil {
		return nil, nil, fmt.Errorf("events: %w", err)
	}
	watchers := []breaker.Announcer{}
	if nats != nil {
		tell, parts, watchers = append(tell, nats), append(parts, nats), append(watchers, nats)
	}
	parts = append(parts, p.breaker.watch(p.core, p.namespace, log, watchers...))
	if f.dryRun {
		tell, parts = nil, nil
	}
	r, err = reaper.New(reaper.Options{
		Config: p.config, Namespace: p.namespace, Identity: instance() + "-" + strconv.Itoa(os.Getpid()),
		Policy: p.policies, Breaker: p.breaker, Announcer: tell, DryRun: f.dryRun,
		Archiver: archiver{archive.New(archive.Options{
			Clients: clients, Namespace: p.namespace, Now: time.Now, Metrics: archive.NewMetrics(p.registry), Logger: log,
		})},
		Now: time.Now, Metrics: reaper.NewMetrics(p.registry), Logger: log,
	})
	return r, parts, err
}

// archiver makes an archive.Archive the reaper's.
type archiver struct{ *archive.Archive }

// Save implements reaper.Archiver.
func (a archiver) Save(ctx context.Context, namespace *corev1.Namespace, keep time.Duration, secrets bool) error {
	return a.Archive.Save(ctx, namespace, archive.Keep{For: keep, Secrets: secrets})
}

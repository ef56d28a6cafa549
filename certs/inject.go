package certs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	admissionregistrationclient "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
)

const (
	// fieldManager owns caBundle, so that a server-side apply of manifests without it leaves it alone.
	fieldManager = "agent-lifecycle-certs"

	// writeInterval is the pace of writes to one configuration. The first is never held up; a quarrel with somebody who
	// keeps emptying the bundle stays affordable.
	writeInterval = time.Second
)

// injector writes the bundles of webhook configurations.
type injector struct {
	client admissionregistrationclient.AdmissionregistrationV1Interface
	log    *slog.Logger
	last   map[string]attempt
}

// attempt remembers the last write to one configuration.
type attempt struct {
	at time.Time
	// resourceVersion is the one the write was computed from.
	resourceVersion string
	// outdated: the write came too late, the configuration had changed already.
	outdated bool
}

// holds says how long the next write must wait. One that came too late changed nothing, so that the next is free as
// soon as there is something newer to compute it from.
func (a attempt) holds(resourceVersion string, now time.Time) time.Duration {
	if a.outdated && a.resourceVersion != resourceVersion {
		return 0
	}
	return a.at.Add(writeInterval).Sub(now)
}

func newInjector(client admissionregistrationclient.AdmissionregistrationV1Interface, log *slog.Logger) *injector {
	return &injector{client: client, log: log, last: map[string]attempt{}}
}

// inject brings every bundle up to date. It returns how soon it must be called again though nothing changed, zero for
// never, and what failed. Every write is bound to the version it was computed from: of replicas that write at once one
// succeeds, and the others find nothing left to do when they see what it wrote.
func (i *injector) inject(
	ctx context.Context, registrations []registration, a authorities, now time.Time,
) (again time.Duration, err error) {
	var errs []error
	soon := func(d time.Duration) {
		if again == 0 || d < again {
			again = d
		}
	}
	for _, r := range registrations {
		patch := bundlePatch(r, a, now)
		if patch == nil {
			continue
		}
		key := r.kind + "/" + r.name
		if wait := i.last[key].holds(r.resourceVersion, now); wait > 0 {
			soon(wait)
			continue
		}
		err := i.write(ctx, r, patch)
		outdated := apierrors.IsConflict(err) || apierrors.IsNotFound(err)
		i.last[key] = attempt{at: now, resourceVersion: r.resourceVersion, outdated: outdated}
		switch {
		case err == nil:
			i.log.Info("Wrote caBundle", "kind", r.kind, "name", r.name)
		case outdated: // what is newer arrives by watch
			soon(writeInterval)
		default:
			i.log.Error("Cannot write caBundle", "kind", r.kind, "name", r.name, "retry", writeInterval, "err", err)
			errs = append(errs, err)
			soon(writeInterval)
		}
	}
	return again, errors.Join(errs...)
}

// bundlePatch is a strategic merge patch, which finds webhooks by name and touches caBundle alone; nil if there is
// nothing to change.
func bundlePatch(r registration, a authorities, now time.Time) []byte {
	type clientConfig struct {
		CABundle []byte `json:"caBundle"`
	}
	type entry struct {
		Name         string       `json:"name"`
		ClientConfig clientConfig `json:"clientConfig"`
	}
	var entries []entry
	for _, w := range r.webhooks {
		if merged, changed := mergeBundle(w.caBundle, a, now); changed {
			entries = append(entries, entry{Name: w.name, ClientConfig: clientConfig{CABundle: merged}})
		}
	}
	if len(entries) == 0 {
		return nil
	}
	// Strings and bytes always marshal.
	patch, _ := json.Marshal(map[string]any{
		"metadata": map[string]string{"resourceVersion": r.resourceVersion},
		"webhooks": entries,
	})
	return patch
}

func (i *injector) write(ctx context.Context, r registration, patch []byte) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	options := metav1.PatchOptions{FieldManager: fieldManager}
	var err error
	switch r.kind {
	case kindMutating:
		_, err = i.client.MutatingWebhookConfigurations().
			Patch(ctx, r.name, types.StrategicMergePatchType, patch, options)
	case kindValidating:
		_, err = i.client.ValidatingWebhookConfigurations().
			Patch(ctx, r.name, types.StrategicMergePatchType, patch, options)
	}
	if err != nil {
		return fmt.Errorf("patch %s %q: %w", r.kind, r.name, err)
	}
	return nil
}

package reaper

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// LeaseName is the Lease that the replica holds which does the work.
const LeaseName = "lifecycle-reaper"

// How long a replica holds the Lease that has gone, and how often it is renewed: another one takes over within 20 s.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
)

// Breaker is asked before an agent is started again. Package breaker has it.
type Breaker interface {
	// Closed returns nil if it is closed.
	Closed(ctx context.Context) error
}

// Options of a Reaper. All are required.
type Options struct {
	Config *rest.Config

	// Namespace holds the Lease, Identity is this replica's name in it.
	Namespace, Identity string

	Policy  PolicySource
	Breaker Breaker

	// Now is the clock.
	Now func() time.Time

	Metrics *Metrics
	Logger  *slog.Logger
}

// Reaper does the work while it holds the Lease.
type Reaper struct{ options Options }

// New returns a Reaper.
func New(options Options) *Reaper { return &Reaper{options} }

// Run waits for the Lease, works while it holds it, and waits again once it has lost it, until ctx ends.
func (r *Reaper) Run(ctx context.Context) error {
	clientset, err := kubernetes.NewForConfig(r.options.Config)
	if err != nil {
		return fmt.Errorf("reaper: %w", err)
	}
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: r.options.Namespace, Name: LeaseName},
		Client:     clientset.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: r.options.Identity},
	}
	for ctx.Err() == nil {
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: lock, LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod,
			ReleaseOnCancel: true, Name: LeaseName,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: r.lead,
				OnStoppedLeading: func() { r.options.Metrics.leading.Set(0) },
			},
		})
		if err != nil {
			return fmt.Errorf("reaper: %w", err)
		}
		elector.Run(ctx)
	}
	return nil
}

// lead works until ctx ends, which is when the Lease is lost. A fault of the reaper must not stop admission, which runs in the
// same process: it is logged, and tried again.
func (r *Reaper) lead(ctx context.Context) {
	r.options.Metrics.leading.Set(1)
	r.options.Logger.InfoContext(ctx, "Leading: looking after agents")
	for ctx.Err() == nil {
		if err := r.work(ctx); err != nil && ctx.Err() == nil {
			r.options.Logger.ErrorContext(ctx, "The reaper failed; trying again", "error", err, "pause", retryPeriod.String())
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryPeriod):
		}
	}
}

// claimIndex finds Deployments by the claims that they mount.
const claimIndex = "claims"

func (r *Reaper) work(ctx context.Context) error {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{appsv1.AddToScheme, corev1.AddToScheme, metav1.AddMetaToScheme} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	carriesLabel, err := labels.NewRequirement(lifecycle.LabelDeployment, selection.Exists, nil)
	if err != nil {
		return err
	}
	agents := labels.NewSelector().Add(*carriesLabel)
	manager, err := ctrl.NewManager(r.options.Config, ctrl.Options{
		Scheme:  scheme,
		Metrics: metricsserver.Options{BindAddress: "0"},
		Logger:  logr.FromSlogHandler(r.options.Logger.Handler()),
		// Names are for metrics; after the Lease was lost there is another controller of the same name.
		Controller: config.Controller{SkipNameValidation: new(true)},
		Cache: cache.Options{
			DefaultLabelSelector: agents, DefaultTransform: cache.TransformStripManagedFields(),
			// Who else mounts a claim is a matter of all Deployments.
			ByObject: map[client.Object]cache.ByObject{&appsv1.Deployment{}: {Label: labels.Everything()}},
		},
	})
	if err != nil {
		return err
	}
	if err := manager.GetFieldIndexer().IndexField(ctx, &appsv1.Deployment{}, claimIndex, mountedClaims); err != nil {
		return err
	}
	o := r.options
	reconciler := &reconciler{
		client: manager.GetClient(), policy: o.Policy, breaker: o.Breaker, now: o.Now, metrics: o.Metrics, log: o.Logger,
		pauses: pauses{}, denied: map[string]bool{},
	}
	toAgent := handler.EnqueueRequestsFromMapFunc(agentOfObject)
	err = ctrl.NewControllerManagedBy(manager).Named("agents").For(&appsv1.Deployment{}).
		WatchesMetadata(&corev1.PersistentVolumeClaim{}, toAgent).
		WatchesMetadata(&corev1.Service{}, toAgent).
		Watches(&corev1.Pod{}, toAgent).
		Complete(reconciler)
	if err != nil {
		return err
	}
	return manager.Start(ctx)
}

// agentOfObject is the Deployment that an object's label names.
func agentOfObject(_ context.Context, o client.Object) []ctrl.Request {
	name := o.GetLabels()[lifecycle.LabelDeployment]
	if name == "" {
		return nil
	}
	return []ctrl.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: name}}}
}

func mountedClaims(o client.Object) []string {
	d, ok := o.(*appsv1.Deployment)
	if !ok {
		return nil
	}
	var names []string
	for i := range d.Spec.Template.Spec.Volumes {
		if source := d.Spec.Template.Spec.Volumes[i].PersistentVolumeClaim; source != nil {
			names = append(names, source.ClaimName)
		}
	}
	return names
}

package webhook

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"gomodules.xyz/jsonpatch/v2"
	appsv1 "k8s.io/api/apps/v1"
	apiversion "k8s.io/apimachinery/pkg/version"

	"github.com/dexorder/agent-lifecycle/inject"
)

const (
	// askVersion is how often the server's version is read: an upgrade of the cluster is not news that hurries.
	askVersion = 5 * time.Minute

	// retryVersion is how often it is tried to be read as long as nothing is known.
	retryVersion = 5 * time.Second

	// lookAgain is how long a sighting of kept or dropped rules holds. The feature gate can change with a restart of
	// the API server that leaves its version alone.
	lookAgain = time.Hour

	// storedAfter is when a Deployment that was shown is looked at in the cluster, storedWithin how old it may be then: it
	// is the one that was about to be stored.
	storedAfter  = 2 * time.Second
	storedWithin = time.Minute

	// maxSightings bounds the Deployments that wait to be looked at.
	maxSightings = 16
)

// ServerVersion reads the API server's version; a discovery client does.
type ServerVersion interface {
	ServerVersion() (*apiversion.Info, error)
}

// StoredDeployments reads a Deployment as the API server has it; nil if there is none. Cluster does.
type StoredDeployments interface {
	StoredDeployment(ctx context.Context, namespace, name string) (*appsv1.Deployment, error)
}

// RestartRules finds out whether the API server keeps container restart rules: its version is new enough, and what
// /validate sees still has what /mutate put in. A closed feature gate drops the fields silently, before validation.
//
// What /validate sees is a hint alone, since anybody may have sent it: what counts is the Deployment that is stored then.
//
// Until the version is known the answer is no: an agent without the rules is admitted and works.
type RestartRules struct {
	server  ServerVersion
	stored  StoredDeployments
	metrics *Metrics
	log     *slog.Logger
	now     func() time.Time

	sightings chan sighting

	mu      sync.Mutex
	version string
	recent  bool
	// dropped says that the last sighting, at seen, was of a Deployment that had lost its rules.
	dropped bool
	seen    time.Time
}

// sighting is a Deployment that was about to be stored, and tells something about restart rules.
type sighting struct {
	namespace, name string
	reinject        func(*appsv1.Deployment) []jsonpatch.Operation
}

// NewRestartRules returns a RestartRules that knows nothing yet; Run asks the server.
func NewRestartRules(server ServerVersion, stored StoredDeployments, metrics *Metrics, log *slog.Logger) *RestartRules {
	return &RestartRules{
		server: server, stored: stored, metrics: metrics, log: log, now: time.Now, sightings: make(chan sighting, maxSightings),
	}
}

// Run keeps the server's version current, and looks at the Deployments that were shown, until ctx ends.
func (r *RestartRules) Run(ctx context.Context) error {
	go r.lookAtStored(ctx)
	for {
		wait := askVersion
		if err := r.ask(); err != nil {
			r.log.WarnContext(ctx, "The API server's version cannot be read; what is known of restart rules stays", "error", err)
			wait = retryVersion
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

func (r *RestartRules) ask() error {
	info, err := r.server.ServerVersion()
	if err != nil {
		return err
	}
	recent, err := inject.KeepsRestartRules(info.GitVersion)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.version == info.GitVersion {
		return nil
	}
	r.version, r.recent = info.GitVersion, recent
	r.dropped, r.seen = false, time.Time{}
	r.metrics.restartRules(r.recent)
	r.log.Info("Container restart rules", "serverVersion", r.version, "injected", r.recent)
	return nil
}

// Kept implements RulesKeeper.
func (r *RestartRules) Kept() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dropped && r.now().Sub(r.seen) >= lookAgain {
		r.dropped, r.seen = false, time.Time{}
		r.metrics.restartRules(r.recent)
	}
	return r.recent && !r.dropped
}

// lookAtStored looks at what was shown, one after the other, until ctx ends.
func (r *RestartRules) lookAtStored(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-r.sightings:
			select {
			case <-ctx.Done():
				return
			case <-time.After(storedAfter):
			}
			if err := r.look(ctx, s); err != nil {
				r.log.WarnContext(ctx, "Whether a new Deployment has its restart rules cannot be read", "namespace", s.namespace,
					"deployment", s.name, "error", err)
			}
		}
	}
}

// Observe implements RulesKeeper.
func (r *RestartRules) Observe(namespace string, d *appsv1.Deployment, reinject func(*appsv1.Deployment) []jsonpatch.Operation) {
	if !r.Kept() || r.sawRecently() {
		return
	}
	if _, tells := dropped(d, reinject(d)); !tells || d.Name == "" {
		return
	}
	select {
	case r.sightings <- sighting{namespace, d.Name, reinject}:
	default: // Others are looked at; one is enough.
	}
}

// look concludes from a Deployment as it was stored.
func (r *RestartRules) look(ctx context.Context, s sighting) error {
	if r.sawRecently() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, storedWithin)
	defer cancel()
	d, err := r.stored.StoredDeployment(ctx, s.namespace, s.name)
	if err != nil || d == nil || r.now().Sub(d.CreationTimestamp.Time) > storedWithin {
		return err
	}
	if lost, tells := dropped(d, s.reinject(d)); tells {
		r.conclude(lost, d)
	}
	return nil
}

// dropped says whether a Deployment tells that restart rules are dropped, or that they are kept. Only one that lacks restart
// rules and nothing else tells that they were dropped: one that lacks more did not come through /mutate, or was changed
// after it.
func dropped(d *appsv1.Deployment, missing []jsonpatch.Operation) (lost, tells bool) {
	switch {
	case len(missing) == 0:
		return false, hasRestartRules(d)
	default:
		return true, onlyRestartRules(missing)
	}
}

func (r *RestartRules) sawRecently() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.seen.IsZero() && r.now().Sub(r.seen) < lookAgain
}

func (r *RestartRules) conclude(dropped bool, d *appsv1.Deployment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropped, r.seen = dropped, r.now()
	if !dropped {
		return
	}
	r.metrics.restartRules(false)
	r.log.Warn("The API server dropped the container restart rules that were injected; they are left out from now on. "+
		"Its feature gate ContainerRestartRules seems to be closed",
		"serverVersion", r.version, "namespace", d.Namespace, "deployment", d.Name, "triedAgainAfter", lookAgain)
}

func hasRestartRules(d *appsv1.Deployment) bool {
	for i := range d.Spec.Template.Spec.Containers {
		if len(d.Spec.Template.Spec.Containers[i].RestartPolicyRules) > 0 {
			return true
		}
	}
	return false
}

func onlyRestartRules(patch []jsonpatch.Operation) bool {
	for i := range patch {
		_, field, _ := strings.Cut(patch[i].Path, "/containers/")
		if _, field, _ = strings.Cut(field, "/"); field != "restartPolicy" && field != "restartPolicyRules" {
			return false
		}
	}
	return true
}

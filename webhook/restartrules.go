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
)

// ServerVersion reads the API server's version; a discovery client does.
type ServerVersion interface {
	ServerVersion() (*apiversion.Info, error)
}

// RestartRules finds out whether the API server keeps container restart rules: its version is new enough, and what
// /validate sees still has what /mutate put in. A closed feature gate drops the fields silently, before validation.
//
// Until the version is known the answer is no: an agent without the rules is admitted and works.
type RestartRules struct {
	server  ServerVersion
	metrics *Metrics
	log     *slog.Logger
	now     func() time.Time

	mu      sync.Mutex
	version string
	recent  bool
	// dropped says that the last sighting, at seen, was of a Deployment that had lost its rules.
	dropped bool
	seen    time.Time
}

// NewRestartRules returns a RestartRules that knows nothing yet; Run asks the server.
func NewRestartRules(server ServerVersion, metrics *Metrics, log *slog.Logger) *RestartRules {
	return &RestartRules{server: server, metrics: metrics, log: log, now: time.Now}
}

// Run keeps the server's version current until ctx ends.
func (r *RestartRules) Run(ctx context.Context) error {
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

// Observe implements RulesKeeper. Only a Deployment that lacks restart rules and nothing else tells that they were
// dropped: one that lacks more did not come through /mutate, or was changed after it.
func (r *RestartRules) Observe(d *appsv1.Deployment, reinject func() []jsonpatch.Operation) {
	if !r.Kept() || r.sawRecently() {
		return
	}
	missing := reinject()
	switch {
	case len(missing) == 0 && hasRestartRules(d):
		r.conclude(false, d)
	case len(missing) > 0 && onlyRestartRules(missing):
		r.conclude(true, d)
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

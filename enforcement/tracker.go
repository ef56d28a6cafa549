package enforcement

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

const (
	// pollInterval is how often the record is read, and written if that is due.
	pollInterval = 30 * time.Second

	// syncTimeout bounds one reading and writing.
	syncTimeout = 10 * time.Second

	// maxConflicts is how often in a row a write may lose against another replica's; then the next poll tries again.
	maxConflicts = 5

	// installTime is how far apart the ConfigMaps of one installation are created at most.
	installTime = 2 * time.Minute
)

// Deployments of the system's namespace. client-go's typed client is one.
type Deployments interface {
	Get(ctx context.Context, name string, opts metav1.GetOptions) (*appsv1.Deployment, error)
}

// Options of a Tracker. All are required.
type Options struct {
	ConfigMaps ConfigMaps

	// Sibling is a ConfigMap that every version installs. One that is as old as the record's tells a new installation from
	// an upgrade.
	Sibling string

	// Deployments and Server find the server's own Deployment, which tells whether Pods of another version still answer.
	Deployments Deployments
	Server      string

	// Policy returns the policy file in force.
	Policy func() *v1alpha1.LifecyclePolicy

	Now    func() time.Time
	Logger *slog.Logger
}

// Tracker keeps the record, and answers by what it read last. It is safe for concurrent use.
type Tracker struct {
	options Options
	changed chan struct{}

	mu sync.Mutex
	// record is nil as long as there is none.
	record *Record
	// problem says why the record is not read or written.
	problem error
	// rollingOut is when Pods of another version were last seen while there was no record; at first, when this server started.
	rollingOut time.Time
}

// NewTracker returns a Tracker that knows nothing until Run has read the record.
func NewTracker(options Options) *Tracker {
	return &Tracker{options: options, changed: make(chan struct{}, 1), rollingOut: options.Now()}
}

// PolicyChanged makes Run look at the policy at once.
func (t *Tracker) PolicyChanged() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// Run keeps the record until ctx ends. It never fails: without a record every rule that is not of the first revision
// counts as younger than every agent.
func (t *Tracker) Run(ctx context.Context) error {
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	for {
		t.sync(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
		case <-t.changed:
		}
	}
}

// RuleTimes says since when the rules of a profile are enforced; see policy.Request.
func (t *Tracker) RuleTimes(profile string) map[string]policy.RuleTime {
	now := t.options.Now()
	return t.current().Times(profile, now)
}

// current is the record to judge by. Where there is none, rules after the first revision begin at an unknown time; and as
// long as servers of a version before them may answer, they only warn.
func (t *Tracker) current() *Record {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.record != nil {
		return t.record
	}
	return &Record{WarnAbove: firstRevision, WarnUntil: t.rollingOut.Add(warnTime)}
}

// Check says what keeps rules from being enforced; nil if nothing does. It is no reason to be unready.
func (t *Tracker) Check() error {
	t.mu.Lock()
	problem, record := t.problem, t.record
	t.mu.Unlock()
	switch {
	case problem != nil && record == nil:
		return fmt.Errorf("rules newer than revision %d do not hold for Pods of any agent: %w", firstRevision, problem)
	case problem != nil:
		return problem
	}
	if current := t.current(); t.options.Now().Before(current.WarnUntil) {
		return fmt.Errorf("rules newer than revision %d only warn until %s, since older servers may still answer",
			current.WarnAbove, stamp(current.WarnUntil))
	}
	return nil
}

// sync reads the record, and writes what has become of it.
func (t *Tracker) sync(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	record, err := t.advance(ctx)
	for i := 0; apierrors.IsConflict(err) && i < maxConflicts; i++ {
		record, err = t.advance(ctx)
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return // the server stops
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.record
	if record != nil {
		t.record = record
	}
	t.report(ctx, before, err)
	t.problem = err
}

// advance returns the record as it is stored afterwards; nil if nothing is stored. An error may come with a record: it was
// read and could not be written.
func (t *Tracker) advance(ctx context.Context) (*Record, error) {
	cm, stored, err := read(ctx, t.options.ConfigMaps)
	if err != nil {
		t.noteRollout(ctx)
		return nil, err
	}
	s := Situation{Now: t.options.Now(), Revision: v1alpha1.RulesRevision, Rules: Enforced(t.options.Policy())}
	if stored.Revision == 0 {
		s.Fresh = t.fresh(ctx, cm.CreationTimestamp.Time) && !t.isRollingOut(ctx)
	}
	if s.Now.Before(stored.WarnUntil) {
		s.RollingOut = t.isRollingOut(ctx)
	}
	next, changed := Next(stored, s)
	if !changed {
		return &next, nil
	}
	encode(&next, cm)
	if _, err := t.options.ConfigMaps.Update(ctx, cm, metav1.UpdateOptions{}); err != nil {
		err = fmt.Errorf("ConfigMap %s, which holds since when rules are enforced: %w", Name, err)
		if stored.Revision == 0 {
			t.noteRollout(ctx)
			return nil, err
		}
		return &stored, err
	}
	return &next, nil
}

// fresh says whether the record was installed together with the rest of the system. An upgrade that follows within minutes
// of an installation looks the same, but for the older servers that still answer.
func (t *Tracker) fresh(ctx context.Context, created time.Time) bool {
	sibling, err := t.options.ConfigMaps.Get(ctx, t.options.Sibling, metav1.GetOptions{})
	if err != nil {
		return false // That is the careful answer: rules begin a few minutes later.
	}
	return created.Sub(sibling.CreationTimestamp.Time).Abs() <= installTime
}

// noteRollout remembers that Pods of another version may answer, for a time without a record.
func (t *Tracker) noteRollout(ctx context.Context) {
	if !t.isRollingOut(ctx) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rollingOut = t.options.Now()
}

// isRollingOut says whether the server's Deployment has Pods of another template than today's, or whether that cannot be
// read. A server that runs without a Deployment has none.
func (t *Tracker) isRollingOut(ctx context.Context) bool {
	d, err := t.options.Deployments.Get(ctx, t.options.Server, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return false
	case err != nil:
		t.options.Logger.WarnContext(ctx, "It cannot be read whether older servers still answer; that is taken for a yes",
			"deployment", t.options.Server, "error", err)
		return true
	}
	return d.Status.ObservedGeneration < d.Generation || d.Status.Replicas > d.Status.UpdatedReplicas
}

// report logs what has changed.
func (t *Tracker) report(ctx context.Context, before *Record, err error) {
	if err != nil && (t.problem == nil || t.problem.Error() != err.Error()) {
		t.options.Logger.ErrorContext(ctx, "The record of since when rules are enforced cannot be kept; rules that it does not "+
			"hold only warn about Pods", "error", err)
	}
	if err == nil && t.problem != nil {
		t.options.Logger.InfoContext(ctx, "The record of since when rules are enforced is kept again")
	}
	if t.record == nil || t.record == before {
		return
	}
	for key, since := range t.record.Since {
		if before != nil {
			if was, recorded := before.Since[key]; recorded && was.Equal(since) {
				continue
			}
		}
		if !since.IsZero() {
			t.options.Logger.InfoContext(ctx, "A rule is enforced on what was created since", "profile", key.Profile, "rule", key.Rule,
				"since", stamp(since))
		}
	}
	if !t.record.WarnUntil.IsZero() && (before == nil || !before.WarnUntil.Equal(t.record.WarnUntil)) {
		t.options.Logger.InfoContext(ctx, "Newer rules only warn, since older servers may still answer",
			"newerThanRevision", t.record.WarnAbove, "until", stamp(t.record.WarnUntil))
	}
}

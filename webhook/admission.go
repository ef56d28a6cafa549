package webhook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"gomodules.xyz/jsonpatch/v2"
	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/dexorder/agent-lifecycle/inject"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/workload"
)

// Policy is what the server asks of a policy. All of it is pure and safe for concurrent use.
type Policy interface {
	// Profile names the profile that covers a namespace; empty if none does.
	Profile(namespace string) string

	// Inject brings a Deployment of a covered namespace to what belongs in the cluster; see inject.Injector.
	Inject(namespace string, d, old *appsv1.Deployment, opts inject.Options) ([]jsonpatch.Operation, []string)

	Needs(*policy.Request) policy.Needs
	Review(*policy.Request) policy.Verdict
}

// Breaker bounds how many agents delete themselves. Package breaker has it.
type Breaker interface {
	// Take counts one deletion, of what key names; asking again for the same one counts nothing. The API server asks
	// admission again when the Deployment has changed meanwhile, perhaps of another replica. It returns a
	// *breaker.OpenError if there were too many, and any other error if that cannot be told.
	Take(ctx context.Context, key string) error

	// Closed answers as Take does, and counts nothing.
	Closed(ctx context.Context) error
}

// Announcer tells people that an agent deletes itself, which it was allowed. It neither waits nor fails.
type Announcer interface {
	SelfDelete(ctx context.Context, namespace string, proof *policy.SelfDelete, policyHash string)
}

// Active is a policy in force.
type Active struct {
	Policy

	// Hash of the file it came from.
	Hash string
}

// PolicySource returns the policy in force. A request keeps the one it began with.
type PolicySource interface {
	Active() Active
}

// FactSource knows the cluster.
type FactSource interface {
	// Facts gathers what needs asks for about r. What does not exist is a fact; what could not be found out is an
	// error. With fresh, nothing is taken from memory that could be outdated.
	Facts(ctx context.Context, r *policy.Request, needs policy.Needs, fresh bool) (*policy.Facts, error)
}

// CallerWatcher follows the Pod that a caller's token is bound to.
type CallerWatcher interface {
	// WatchCaller calls seen with the facts of every change of the caller's Pod after r.Facts, until seen returns true or
	// ctx ends.
	WatchCaller(ctx context.Context, r *policy.Request, seen func(*policy.Facts) bool) error
}

// RulesKeeper knows whether the API server keeps container restart rules.
type RulesKeeper interface {
	Kept() bool

	// Observe is shown each new Deployment that a covered namespace is about to store; reinject says what injection
	// would still add to one.
	Observe(namespace string, d *appsv1.Deployment, reinject func(*appsv1.Deployment) []jsonpatch.Operation)
}

// RuleTimes knows since when rules are enforced. Package enforcement has it.
type RuleTimes interface {
	// RuleTimes says it for the rules of a profile; see policy.Request. It does not wait for anything.
	RuleTimes(profile string) map[string]policy.RuleTime
}

// Admission answers AdmissionReviews. All fields but RuleTimes and ActivityKey are required. It is safe for concurrent use, and must
// not be copied.
type Admission struct {
	Policies     PolicySource
	Facts        FactSource
	RestartRules RulesKeeper
	Callers      CallerWatcher
	Breaker      Breaker
	Announcer    Announcer
	Metrics      *Metrics
	Logger       *slog.Logger

	// RuleTimes may be nil: then every rule has always been enforced.
	RuleTimes RuleTimes

	// ActivityKey returns the public half of the key by which the gateway signs, empty while it is not known. Nil: never.
	ActivityKey func() string

	holds holds

	// policyReviews lets one policy file be read at a time: it may take 50 MiB.
	policyReviews exclusive
}

// exclusive admits one at a time. Its zero value is free.
type exclusive struct {
	once sync.Once
	busy chan struct{}
}

// acquire waits until it is free, or ctx ends.
func (s *exclusive) acquire(ctx context.Context) (release func(), err error) {
	s.once.Do(func() { s.busy = make(chan struct{}, 1) })
	select {
	case s.busy <- struct{}{}:
		return func() { <-s.busy }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// StopHolding answers the self-deletes that are held, and holds none from now on: the server is about to stop, and another
// one can be asked.
func (a *Admission) StopHolding() { a.holds.stop() }

// Mutate appends to dst the answer of /mutate to body, an AdmissionReview in JSON. It never denies: all verdicts are
// Validate's. An error means that there is no answer but HTTP's 400; dst is returned as it was.
func (a *Admission) Mutate(ctx context.Context, dst, body []byte) ([]byte, error) {
	return a.answer(ctx, dst, body, &mutation)
}

// Stamp appends to dst the answer of /stamp to body, an AdmissionReview in JSON. It refuses nothing: what it cannot read it
// admits as it is, and counts. An error means that there is no answer but HTTP's 400; dst is returned as it was.
func (a *Admission) Stamp(ctx context.Context, dst, body []byte) ([]byte, error) {
	return a.answer(ctx, dst, body, &stamping)
}

// Validate appends to dst the answer of /validate to body, an AdmissionReview in JSON. An error means that there is no
// answer but HTTP's 400; dst is returned as it was.
func (a *Admission) Validate(ctx context.Context, dst, body []byte) ([]byte, error) {
	return a.answer(ctx, dst, body, &validation)
}

// ReviewPolicy appends to dst the answer of /policy to body, an AdmissionReview in JSON: it refuses a policy that no server
// could load. An error means that there is no answer but HTTP's 400; dst is returned as it was.
func (a *Admission) ReviewPolicy(ctx context.Context, dst, body []byte) ([]byte, error) {
	return a.answer(ctx, dst, body, &policyReview)
}

// path is one of the server's four.
type path struct {
	name    string
	entries []entry
	covers  func(*task) bool
	decide  func(*Admission, context.Context, *task) answer

	// lenient paths admit what cannot be judged.
	lenient bool
}

var (
	mutation     = path{name: "mutate", entries: mutates, covers: (*task).inProfile, decide: (*Admission).mutate}
	policyReview = path{name: "policy", entries: policyWrites, covers: (*task).ofPolicy, decide: (*Admission).reviewPolicy}
	stamping     = path{name: "stamp", entries: stamps, covers: (*task).ofRoleAgent, decide: (*Admission).stamp, lenient: true}
	validation   = path{name: "validate", entries: validates, covers: (*task).inProfile, decide: (*Admission).validate}
)

func (p *path) fault(reason faultReason, err error) answer {
	switch {
	case p.lenient:
		return passed(reason, err)
	case reason == faultNotUnderstood:
		return notUnderstood(err)
	}
	return fault(reason, err)
}

// task is one request on its way to an answer.
type task struct {
	*request
	gvk     schema.GroupVersionKind
	policy  Active
	profile string
}

func (t *task) inProfile() bool { return t.profile != "" }

func (a *Admission) answer(ctx context.Context, dst, body []byte, p *path) ([]byte, error) {
	start := time.Now()
	r, err := decodeReview(body)
	if err != nil {
		return dst, err
	}
	active := a.Policies.Active()
	kind, result := a.decide(ctx, r, active, p)
	result.policyHash = active.Hash
	out, err := appendAnswer(dst, r.UID, &result)
	if err != nil {
		// Only a patch can fail to encode, and a fault has none.
		a.Logger.ErrorContext(ctx, "An answer cannot be encoded", "path", p.name, "uid", r.UID, "error", err)
		result = p.fault(faultPatch, err)
		if out, err = appendAnswer(dst, r.UID, &result); err != nil {
			return dst, err
		}
	}
	a.Metrics.observe(p.name, kind, time.Since(start))
	a.count(p, r, kind, &result)
	a.log(ctx, p, r, &result)
	return out, nil
}

// decide answers a decoded request, whatever happens. The kind is one of the understood ones, or empty.
func (a *Admission) decide(ctx context.Context, r *request, active Active, p *path) (kind string, result answer) {
	defer func() {
		if v := recover(); v != nil {
			a.Logger.ErrorContext(ctx, "A panic was turned into a fault", "path", p.name, "uid", r.UID, "kind", short(r.Kind.Kind),
				"namespace", short(r.Namespace), "name", short(r.Name), "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			result = p.fault(faultPanic, fmt.Errorf("the admission server failed; its log has more under uid %s", r.UID))
		}
	}()
	e, err := understand(p.entries, r)
	if err != nil {
		return "", p.fault(faultNotUnderstood, err)
	}
	t := &task{request: r, gvk: e.kind, policy: active, profile: active.Profile(r.Namespace)}
	if !p.covers(t) {
		return e.kind.Kind, uncovered()
	}
	result = p.decide(a, ctx, t)
	result.profile = t.profile
	return e.kind.Kind, result
}

// count leaves dry runs out: a fleet of diffs says nothing about what is admitted.
func (a *Admission) count(p *path, r *request, kind string, result *answer) {
	if r.DryRun {
		return
	}
	if result.verdict == verdictFault {
		a.Metrics.fault(result.reason)
	}
	if p == &validation {
		a.Metrics.decided(kind, result)
		if r.Operation == admissionv1.Delete {
			a.Metrics.countSelfDelete(result)
		}
	}
}

// objects decodes what the request is about. old is nil at CREATE, object at DELETE.
func (t *task) objects() (object, old *workload.Object, err error) {
	if t.Operation == admissionv1.Delete {
		if !present(t.OldObject) {
			return nil, nil, errors.New("DELETE without an oldObject")
		}
		if old, err = workload.Decode(t.gvk, t.OldObject); err != nil {
			return nil, nil, fmt.Errorf("oldObject: %w", err)
		}
		return nil, old, nil
	}
	if !present(t.Object) {
		return nil, nil, fmt.Errorf("%s without an object", t.Operation)
	}
	if object, err = workload.Decode(t.gvk, t.Object); err != nil {
		return nil, nil, fmt.Errorf("object: %w", err)
	}
	if t.Operation == admissionv1.Create {
		return object, nil, nil
	}
	if !present(t.OldObject) {
		return nil, nil, fmt.Errorf("%s without an oldObject", t.Operation)
	}
	if old, err = workload.Decode(t.gvk, t.OldObject); err != nil {
		return nil, nil, fmt.Errorf("oldObject: %w", err)
	}
	return object, old, nil
}

// short bounds what a request says of itself for a line of the log: the API server's names are shorter.
func short(s string) string { return bounded(s, maxName) }

// maxName bounds names, in bytes, as the API server does.
const maxName = 253

// log writes what was refused, and what could not be judged; what was let pass otherwise only when asked for.
func (a *Admission) log(ctx context.Context, p *path, r *request, result *answer) {
	level := slog.LevelDebug
	switch result.verdict {
	case verdictFault:
		level = slog.LevelError
	case verdictDeny, verdictOpen:
		level = slog.LevelInfo
	}
	if result.proof != nil {
		level = slog.LevelInfo
	}
	if !a.Logger.Enabled(ctx, level) {
		return
	}
	a.Logger.LogAttrs(ctx, level, "Answered", slog.String("path", p.name), slog.String("verdict", result.verdict),
		slog.String("uid", string(r.UID)), slog.String("operation", short(string(r.Operation))), slog.String("kind", short(r.Kind.Kind)),
		slog.String("subresource", short(r.SubResource)), slog.String("namespace", short(r.Namespace)), slog.String("name", short(r.Name)),
		slog.String("user", short(r.UserInfo.Username)), slog.Bool("dryRun", r.DryRun), slog.String("profile", result.profile),
		slog.Any("rules", result.rules), slog.Int("patch", len(result.patch)), slog.String("message", cmp.Or(result.status.Message, result.complaint)))
}

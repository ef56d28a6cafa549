package inject

import (
	"slices"

	"gomodules.xyz/jsonpatch/v2"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/workload"
)

// Config is what a profile injects.
type Config struct {
	Sidecar         v1alpha1.Sidecar
	Tiers           map[lifecycle.UserType]v1alpha1.Tier
	Idle            v1alpha1.Idle
	RestartRules    v1alpha1.RestartRules
	DefaultUserType lifecycle.UserType
	ServiceAccount  v1alpha1.ServiceAccount

	// AcceptsSidecar says whether an image may be that of a sidecar admitted earlier.
	AcceptsSidecar func(image string) bool
}

// Options are what the cluster makes of the policy.
type Options struct {
	// RestartRules says that the API server keeps container restart rules. It decides where the policy says auto.
	RestartRules bool

	// ActivityKey is the public half of the key by which the gateway signs, as lifecycle.EnvActivityKey has it; empty
	// while there is none, or it is not known.
	ActivityKey string
}

// Injector brings Deployments to what belongs in one profile's namespaces. It is safe for concurrent use.
type Injector struct {
	config Config

	// parts are built once: nothing in them depends on the Deployment but what the key says.
	parts map[partsKey]Parts
}

type partsKey struct {
	userType     lifecycle.UserType
	restartRules bool
}

// New returns an Injector. The configuration is taken as validated.
func New(c Config) *Injector {
	in := &Injector{config: c, parts: map[partsKey]Parts{}}
	for _, t := range append(lifecycle.UserTypes(), unknownUserType) {
		for _, rules := range []bool{false, true} {
			in.parts[partsKey{t, rules}] = newParts(&in.config, t, rules)
		}
	}
	return in
}

// unknownUserType stands for a label value that is no user type. The identity rule refuses it; nothing that depends on
// a tier is injected.
const unknownUserType lifecycle.UserType = ""

// Parts returns what is injected today into every agent of a user type. AgentEnv is empty for what is no user type. What
// comes with the gateway's key is ActivityEnv.
func (in *Injector) Parts(t lifecycle.UserType) Parts {
	return in.canonical(t, false)
}

func (in *Injector) canonical(t lifecycle.UserType, restartRules bool) Parts {
	if p, ok := in.parts[partsKey{t, restartRules}]; ok {
		return p
	}
	return in.parts[partsKey{unknownUserType, restartRules}]
}

// Deployment brings d to what belongs in the cluster, in place. It returns the JSON patch that does the same to the
// JSON that d was decoded from, and warnings for the user about what was put back. old is what is stored now, nil at
// CREATE.
//
// On UPDATE only what the user changed is touched. A Deployment whose template, strategy and identity equal old's is
// left as it is, even if this program would inject other things today; one that merely lost injected parts, as by a
// re-apply of the manifest it was made from, gets those back that old has, so that its Pod is not restarted.
//
// What was injected into d is shared with the Injector: whoever wants to change it copies d first.
//
// Deployment never refuses. What cannot be injected, such as a name too long for a label, is left for package policy
// to deny.
func (in *Injector) Deployment(d, old *appsv1.Deployment, opts Options) ([]jsonpatch.Operation, []string) {
	if old == nil {
		return in.inject(d, nil, in.canonical(in.userType(d, nil), opts.RestartRules).withActivityKey(opts.ActivityKey, nil))
	}
	if sameIdentity(d, old) &&
		workload.Equal(&d.Spec.Template, &old.Spec.Template) &&
		workload.Equal(&d.Spec.Strategy, &old.Spec.Strategy) {
		return nil, nil
	}
	parts := in.canonical(in.userType(d, old), opts.RestartRules)
	restored := d.DeepCopy()
	patch, warnings := in.inject(restored, old, parts.asAccepted(old, in.config.AcceptsSidecar))
	if workload.Equal(&restored.Spec.Template, &old.Spec.Template) {
		*d = *restored
		return patch, warnings
	}
	return in.inject(d, old, parts.withActivityKey(opts.ActivityKey, old))
}

// sameIdentity says whether the labels that identify an agent are unchanged.
func sameIdentity(d, old *appsv1.Deployment) bool {
	return d.Labels[lifecycle.LabelDeployment] == old.Labels[lifecycle.LabelDeployment] &&
		d.Labels[lifecycle.LabelUserType] == old.Labels[lifecycle.LabelUserType]
}

// userType is that of the Deployment's label; without one, of the stored Deployment's, so that a re-apply does not
// change an agent's tier; else the profile's default.
func (in *Injector) userType(d, old *appsv1.Deployment) lifecycle.UserType {
	if t, ok := d.Labels[lifecycle.LabelUserType]; ok {
		return lifecycle.UserType(t)
	}
	if old != nil {
		if t, ok := old.Labels[lifecycle.LabelUserType]; ok {
			return lifecycle.UserType(t)
		}
	}
	return in.config.DefaultUserType
}

// inject brings d to carry the given parts.
func (in *Injector) inject(d, old *appsv1.Deployment, p Parts) ([]jsonpatch.Operation, []string) {
	if spec := &d.Spec.Template.Spec; !wellFormed(spec) || isForWindows(spec) {
		return nil, nil
	}
	s := &session{Deployment: d, old: old, config: &in.config, parts: p}
	for _, step := range steps {
		step(s)
	}
	return s.patch, s.warnings
}

// wellFormed says whether there are containers and all have names. The API server refuses what is otherwise, whatever
// else it holds; and a null in a list, which is decoded as a container without a name, has nothing below it to patch.
func wellFormed(spec *corev1.PodSpec) bool {
	unnamed := func(c corev1.Container) bool { return c.Name == "" }
	return len(spec.Containers) > 0 && !slices.ContainsFunc(spec.Containers, unnamed) &&
		!slices.ContainsFunc(spec.InitContainers, unnamed)
}

// session is one Deployment being changed.
type session struct {
	*appsv1.Deployment
	old    *appsv1.Deployment
	config *Config
	parts  Parts
	editor

	// runAsUser is what the user's containers run as that do not say; nil: the Pod says.
	runAsUser *int64
}

// steps are what injection consists of, in the order of the patch.
var steps = []func(*session){
	(*session).labels,
	(*session).renewal,
	(*session).agentContainer,
	(*session).strategy,
	(*session).pod,
	(*session).securityDefaults,
	(*session).agent,
	(*session).sidecar,
	(*session).volumes,
}

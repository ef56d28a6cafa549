package policy

import (
	"fmt"
	"slices"
	"strings"

	psaapi "k8s.io/pod-security-admission/api"
	psa "k8s.io/pod-security-admission/policy"

	"github.com/dexorder/agent-lifecycle/inject"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/image"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// Policy is a policy file made ready to judge by. It is immutable and safe for concurrent use.
type Policy struct {
	profiles   []*Profile
	selfDelete v1alpha1.SelfDelete
}

// Profile is one profile of a Policy.
type Profile struct {
	policy      *Policy
	file        *v1alpha1.Profile
	identities  *v1alpha1.Identities
	selfDelete  *v1alpha1.SelfDelete
	tiers       map[lifecycle.UserType]v1alpha1.Tier
	images      image.Allowlist
	sidecars    image.Allowlist
	podSecurity podSecurityStandard
	injector    *inject.Injector
}

// podSecurityStandard is what the pod-security rule evaluates.
type podSecurityStandard struct {
	evaluator psa.Evaluator
	level     psaapi.LevelVersion
}

// New makes a policy ready. The file must be decoded by v1alpha1.Decode, which defaults and validates it; an error
// here means that it was not.
func New(file *v1alpha1.LifecyclePolicy) (*Policy, error) {
	evaluator, err := psa.NewEvaluator(psa.DefaultChecks(), nil)
	if err != nil {
		return nil, fmt.Errorf("pod security checks: %w", err)
	}
	sidecars, err := image.ParseList(append([]string{file.Sidecar.Image}, file.Sidecar.AcceptedImages...))
	if err != nil {
		return nil, fmt.Errorf("sidecar images: %w", err)
	}
	p := &Policy{selfDelete: file.SelfDelete}
	for i := range file.Profiles {
		profile, err := newProfile(file, &file.Profiles[i], evaluator, sidecars)
		if err != nil {
			return nil, fmt.Errorf("profile %q: %w", file.Profiles[i].Name, err)
		}
		profile.policy = p
		p.profiles = append(p.profiles, profile)
	}
	return p, nil
}

func newProfile(file *v1alpha1.LifecyclePolicy, profile *v1alpha1.Profile, evaluator psa.Evaluator, sidecars image.Allowlist,
) (*Profile, error) {
	images, err := image.ParseList(profile.Rules.ImageAllowlist.Images)
	if err != nil {
		return nil, fmt.Errorf("rule image-allowlist: %w", err)
	}
	level, err := psaapi.ParseLevel(profile.Rules.PodSecurity.Level)
	if err != nil {
		return nil, fmt.Errorf("rule pod-security: level: %w", err)
	}
	version, err := psaapi.ParseVersion(profile.Rules.PodSecurity.Version)
	if err != nil {
		return nil, fmt.Errorf("rule pod-security: version: %w", err)
	}
	return &Profile{
		file:        profile,
		identities:  &file.Identities,
		selfDelete:  &file.SelfDelete,
		tiers:       file.Tiers,
		images:      images,
		sidecars:    sidecars,
		podSecurity: podSecurityStandard{evaluator, psaapi.LevelVersion{Level: level, Version: version}},
		injector: inject.New(inject.Config{
			Sidecar:         file.Sidecar,
			Tiers:           file.Tiers,
			Idle:            file.Idle,
			RestartRules:    file.RestartRules,
			DefaultUserType: profile.DefaultUserType,
			ServiceAccount:  profile.ServiceAccount,
			AcceptsSidecar:  func(ref string) bool { return sidecars.Allows(ref) == nil },
		}),
	}, nil
}

// Profiles returns the profiles in the file's order.
func (p *Policy) Profiles() []*Profile { return slices.Clone(p.profiles) }

// Profile returns the profile that covers a namespace, nil if none does.
func (p *Policy) Profile(namespace string) *Profile {
	for _, profile := range p.profiles {
		if profile.Covers(namespace) {
			return profile
		}
	}
	return nil
}

// Injector returns what injects into a namespace's Deployments, nil if no profile covers it.
func (p *Policy) Injector(namespace string) *inject.Injector {
	if profile := p.Profile(namespace); profile != nil {
		return profile.injector
	}
	return nil
}

// SelfDelete returns what is asked of agents that delete themselves.
func (p *Policy) SelfDelete() v1alpha1.SelfDelete { return p.selfDelete }

// Name returns the profile's name.
func (p *Profile) Name() string { return p.file.Name }

// Namespaces returns the profile's selection of namespaces.
func (p *Profile) Namespaces() v1alpha1.Namespaces { return p.file.Namespaces }

// Covers says whether the profile holds in a namespace.
func (p *Profile) Covers(namespace string) bool { return p.file.Namespaces.Covers(namespace) }

// prefixOf returns the prefix by which the profile covers a namespace; empty where it does by name.
func (p *Profile) prefixOf(namespace string) string {
	if slices.Contains(p.file.Namespaces.Names, namespace) {
		return ""
	}
	return p.file.Namespaces.MatchingPrefix(namespace)
}

// AllowedKinds returns the kinds of workload that the profile allows.
func (p *Profile) AllowedKinds() []string { return slices.Clone(p.file.Rules.WorkloadKind.Kinds) }

// Controller returns the account of a workload controller, from which the profile admits Pods. Empty if there is none.
func (p *Profile) Controller() string {
	if len(p.identities.Controllers) == 0 {
		return ""
	}
	return p.identities.Controllers[0]
}

// agentName replaces the placeholder for the agent's name in the patterns of a profile.
const agentName = "{deployment}"

// anyName as a pattern allows every name.
const anyName = "*"

// allowsName says whether name is one of the patterns, for an agent of that name.
func allowsName(patterns []string, agent, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		if pattern == anyName {
			return true
		}
		if agent == "" && strings.Contains(pattern, agentName) {
			return false
		}
		return strings.ReplaceAll(pattern, agentName, agent) == name
	})
}

// namesFor spells patterns out for an agent, for a message.
func namesFor(patterns []string, agent string) string {
	if len(patterns) == 0 {
		return "none"
	}
	names := make([]string, len(patterns))
	for i, pattern := range patterns {
		if agent != "" {
			pattern = strings.ReplaceAll(pattern, agentName, agent)
		}
		names[i] = fmt.Sprintf("%q", pattern)
	}
	return strings.Join(names, ", ")
}

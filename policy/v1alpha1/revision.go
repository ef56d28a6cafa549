package v1alpha1

// Revisions of the rules. A release that adds a rule adds a revision, so that a policy file that was written before the
// rule existed does not come to enforce it.
const (
	// firstRulesRevision is that of a file without rulesRevision: the rules of release v0.1.0.
	firstRulesRevision int32 = 1

	// RulesRevision is the newest revision that this program knows.
	RulesRevision int32 = 2
)

// namedRule is what a rule has in common with every other, under its id.
type namedRule struct {
	id string

	// revision in which the rule was added.
	revision int32

	*Rule
}

// all lists every rule, in the order of the fields. It is the only place that says in which revision a rule was added.
func (r *Rules) all() []namedRule {
	return []namedRule{
		{"image-allowlist", 1, &r.ImageAllowlist.Rule},
		{"pod-security", 1, &r.PodSecurity.Rule},
		{"read-only-rootfs", 1, &r.ReadOnlyRootfs},
		{"reserved-uids", 1, &r.ReservedUIDs},
		{"resource-limits", 1, &r.ResourceLimits.Rule},
		{"recreate-strategy", 1, &r.RecreateStrategy},
		{"agent-container", 1, &r.AgentContainer},
		{"sidecar-integrity", 1, &r.SidecarIntegrity},
		{"volumes", 1, &r.Volumes.Rule},
		{"references", 1, &r.References.Rule},
		{"replicas", 1, &r.Replicas.Rule},
		{"identity", 1, &r.Identity},
		{"service-account", 1, &r.ServiceAccounts.Rule},
		{"workload-kind", 1, &r.WorkloadKind.Rule},
		{"terminating", 1, &r.Terminating},
		{"self-delete", 1, &r.SelfDelete},
		{"gateway", 1, &r.Gateway},
		{"claims", 1, &r.Claims},
		{"service-links", 2, &r.ServiceLinks},
		{"object-size", 2, &r.ObjectSize.Rule},
	}
}

// defaultEnforcement is that of a rule whose enforcement a file of the given revision leaves out. The author of an
// earlier file cannot have known the rule: it is audited, until the file names the rule or a later revision.
func (r *namedRule) defaultEnforcement(fileRevision int32) Enforcement {
	if r.revision > fileRevision {
		return Audit
	}
	return Enforce
}

// RuleSetting is how strictly a profile takes a rule.
type RuleSetting struct {
	// ID of the rule, and the Revision in which it was added.
	ID       string
	Revision int32

	Enforcement Enforcement
}

// Settings lists the profile's rules in the order of the fields of Rules. The profile must be decoded by Decode.
func (p *Profile) Settings() []RuleSetting {
	all := p.Rules.all()
	settings := make([]RuleSetting, len(all))
	for i, rule := range all {
		settings[i] = RuleSetting{ID: rule.id, Revision: rule.revision, Enforcement: rule.Enforcement}
	}
	return settings
}

// AuditedRules lists the ids of the rules that are newer than the file and that a profile only audits, in the order of the
// fields of Rules.
func (f *LifecyclePolicy) AuditedRules() []string {
	var ids []string
	for i, rule := range (&Rules{}).all() {
		if rule.revision <= f.RulesRevision {
			continue
		}
		for p := range f.Profiles {
			if f.Profiles[p].Rules.all()[i].Enforcement == Audit {
				ids = append(ids, rule.id)
				break
			}
		}
	}
	return ids
}

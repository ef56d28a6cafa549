package reaper

import (
	"context"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// previewPart is one kind of reaping, compared.
type previewPart struct {
	name string

	// settings are what of a policy decides on the objects: by policies that do not differ in it, the same happens to
	// them.
	settings func(*v1alpha1.LifecyclePolicy) any

	// needs says whether the part has to know the objects of a kind.
	needs func(*kind) bool

	compare func(*previewing, context.Context) ([]*Change, error)
}

// previewParts lists all, in the order of a pass.
func previewParts() []previewPart {
	type settings []any
	return []previewPart{
		{
			name: "namespaces", needs: func(*kind) bool { return true }, compare: (*previewing).namespaces,
			settings: func(p *v1alpha1.LifecyclePolicy) any {
				r := &p.Reaper
				return settings{covered(p), r.DryRun, r.Cap, r.Interval, r.Sightings, r.Namespaces}
			},
		},
		{
			name: "agents", compare: (*previewing).agents,
			needs: func(k *kind) bool { return k.name == "Pod" || k.name == "Deployment" },
			settings: func(p *v1alpha1.LifecyclePolicy) any {
				var userTypes []lifecycle.UserType
				for i := range p.Profiles {
					userTypes = append(userTypes, p.Profiles[i].DefaultUserType)
				}
				return settings{covered(p), userTypes, p.Tiers, p.SelfDelete, p.Reaper.DryRun, p.Reaper.Cap, p.Reaper.Agents}
			},
		},
		{
			name: "claims", compare: (*previewing).claims,
			needs: func(k *kind) bool { return k.name == "PersistentVolumeClaim" || k.name == "Pod" || k.workload },
			settings: func(p *v1alpha1.LifecyclePolicy) any {
				return settings{covered(p), p.Tiers, p.Reaper.DryRun, p.Reaper.Cap, p.Reaper.Claims}
			},
		},
		{
			name: "leftovers", needs: func(k *kind) bool { return k.name == "Namespace" }, compare: (*previewing).leftovers,
			settings: func(p *v1alpha1.LifecyclePolicy) any {
				return settings{covered(p), p.Reaper.DryRun, p.Reaper.Cap.Count, p.Reaper.Namespaces.Orgs, p.Reaper.Leftovers}
			},
		},
	}
}

// change asks for the outlook on an object by each policy.
func (r *previewing) change(kind string, o *object, outlook func(*v1alpha1.LifecyclePolicy) Outlook) *Change {
	c := &Change{Kind: kind, Namespace: o.namespace, Name: o.name, Then: outlook(r.Then)}
	if r.Today == nil {
		c.Today = Outlook{Reason: "the system is not installed"}
	} else {
		c.Today = outlook(r.Today)
	}
	c.Today.At, c.Then.At = c.Today.At.UTC(), c.Then.At.UTC()
	return c
}

// applyCaps holds both outlooks on all objects of a part to what one pass may delete.
func (r *previewing) applyCaps(all []*Change, limit func(*v1alpha1.LifecyclePolicy) int) {
	if r.Namespace != "" {
		return
	}
	today, then := make([]*Outlook, 0, len(all)), make([]*Outlook, 0, len(all))
	for _, c := range all {
		today, then = append(today, &c.Today), append(then, &c.Then)
	}
	if r.Today != nil {
		applyCap(today, limit(r.Today))
	}
	applyCap(then, limit(r.Then))
}

func (r *previewing) namespaces(context.Context) ([]*Change, error) {
	var all []*Change
	for _, name := range r.inventory.names() {
		f := r.inventory.facts(name)
		all = append(all, r.change("Namespace", &f.namespace.object, func(policy *v1alpha1.LifecyclePolicy) Outlook {
			return namespaceOutlook(f, policy, r.System, r.Now)
		}))
	}
	r.applyCaps(all, func(policy *v1alpha1.LifecyclePolicy) int {
		return allowed(&policy.Reaper.Cap, len(r.ours(policy)))
	})
	return all, nil
}

// ours names the namespaces that are the reaper's by a policy.
func (r *previewing) ours(policy *v1alpha1.LifecyclePolicy) map[string]bool {
	ours, names := orgs(&policy.Reaper), map[string]bool{}
	for _, name := range r.inventory.names() {
		if n := r.inventory.facts(name).namespace; foreignTo(policy, n, ours, r.System) == "" {
			names[name] = true
		}
	}
	return names
}

func (r *previewing) agents(context.Context) ([]*Change, error) {
	var all []*Change
	examined := map[*v1alpha1.LifecyclePolicy]int{}
	r.inventory.each(func(p *place) {
		ended := map[string][]*pod{}
		for _, pod := range p.pods {
			if pod.ended != nil {
				ended[pod.deployment] = append(ended[pod.deployment], pod)
			}
		}
		for _, d := range p.workloads {
			if d.kind != "Deployment" {
				continue
			}
			c := r.change(d.kind, &d.object, func(policy *v1alpha1.LifecyclePolicy) Outlook {
				o, is := agentOutlook(d, ended[d.name], policy, r.Now)
				if is {
					examined[policy]++
				}
				return o
			})
			if len(ended[d.name]) > 0 {
				all = append(all, c)
			}
		}
	})
	r.applyCaps(all, func(policy *v1alpha1.LifecyclePolicy) int { return allowed(&policy.Reaper.Cap, examined[policy]) })
	return all, nil
}

func (r *previewing) claims(context.Context) ([]*Change, error) {
	var all []*Change
	examined := map[*v1alpha1.LifecyclePolicy]int{}
	r.inventory.each(func(p *place) {
		mounted := p.mounted()
		for _, c := range p.claims {
			agent := c.labels[lifecycle.LabelDeployment]
			if agent == "" {
				continue
			}
			all = append(all, r.change("PersistentVolumeClaim", &c.object, func(policy *v1alpha1.LifecyclePolicy) Outlook {
				if covers(policy, c.namespace) {
					examined[policy]++
				}
				return claimOutlook(c, p.workloads["Deployment/"+agent] != nil, mounted[c.name], policy, r.Now)
			}))
		}
	})
	r.applyCaps(all, func(policy *v1alpha1.LifecyclePolicy) int { return allowed(&policy.Reaper.Cap, examined[policy]) })
	return all, nil
}

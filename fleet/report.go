package fleet

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/inject"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/workload"
)

// Report is what a policy makes of one workload.
type Report struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`

	// Template says which template the workload stands in; empty for one that is stored itself. Refused is then what would be refused
	// of its creation.
	Template string `json:"template,omitempty"`

	// NotRead says why templates were not looked at. That is no mistake of theirs.
	NotRead string `json:"notRead,omitempty"`

	// NotUnderstood says why it could not be judged; nothing else is said then.
	NotUnderstood string `json:"notUnderstood,omitempty"`

	// Refused is what would be refused of the next change of its template, or of its creation where it is no Deployment. Warned is what
	// would only be warned about, and Audited what would only be counted.
	Refused []policy.Violation `json:"refused,omitempty"`
	Warned  []policy.Violation `json:"warned,omitempty"`
	Audited []policy.Violation `json:"audited,omitempty"`

	// Stuck is why its next Pod would not come up.
	Stuck []policy.Violation `json:"stuck,omitempty"`

	// Adopted says whether a Deployment was admitted by the system. Sidecar and SidecarImage are a Deployment's.
	Adopted      bool    `json:"adopted,omitempty"`
	Sidecar      Sidecar `json:"sidecar,omitempty"`
	SidecarImage string  `json:"sidecarImage,omitempty"`

	// TakesUnsigned says that an agent which was admitted does not know the gateway's key: anybody in the Pod network can keep it
	// awake.
	TakesUnsigned bool `json:"takesUnsignedActivity,omitempty"`

	// News is what a preview is about; empty where nothing changes, or nothing is previewed.
	News []News `json:"news,omitempty"`
}

// News is a difference between two policies.
type News string

// The values of News.
const (
	NewlyRefused  News = "newly refused"
	RefusedMore   News = "refused for more"
	NewlyAccepted News = "newly accepted"
	NewlyWarned   News = "newly warned about"
	NewlyStuck    News = "its next Pod would newly not come up"
	NewlyFree     News = "its next Pod would come up again"

	// NewlyOutdated counts, and is no news of its own: a new sidecar's image is news of every agent.
	NewlyOutdated News = "newly not up to date"
)

func newReport(j *Judge, n Namespace, o *workload.Object, claims map[string]policy.Claim) *Report {
	r := &Report{Kind: o.Kind, Namespace: n.Name, Name: o.Meta.Name}
	change := j.Change(n.Name, o, claims)
	r.Refused, r.Warned, r.Audited = change.Denials, change.Warnings, change.Audits
	if chain := chainOf(o.Kind); chain != nil && (o.Replicas == nil || *o.Replicas > 0) {
		var owner metav1.Object = o.Meta
		if o.Deployment != nil {
			owner = o.Deployment
		}
		r.Stuck = j.Return(n.Name, n.Labels, o, owner, chain, claims).Denials
	}
	if o.Deployment != nil && j.Covers(n.Name) {
		r.Adopted = Adopted(o.Deployment)
		r.Sidecar, r.SidecarImage = j.SidecarOf(n.Name, o.Deployment)
		r.TakesUnsigned = r.Adopted && !inject.HasActivityKey(o.Deployment)
	}
	return r
}

// compare fills in News.
func (r *Report) compare(today *Report) {
	add := func(is bool, news News) {
		if is {
			r.News = append(r.News, news)
		}
	}
	add(len(r.Refused) > 0 && len(today.Refused) == 0, NewlyRefused)
	add(len(today.Refused) > 0 && hasMore(r.Refused, today.Refused), RefusedMore)
	add(len(r.Refused) == 0 && len(today.Refused) > 0, NewlyAccepted)
	add(hasMore(r.Warned, slices.Concat(today.Warned, today.Refused)), NewlyWarned)
	add(len(r.Stuck) > 0 && len(today.Stuck) == 0, NewlyStuck)
	add(len(r.Stuck) == 0 && len(today.Stuck) > 0, NewlyFree)
	add(r.Adopted && r.Sidecar != SidecarCurrent && today.Sidecar == SidecarCurrent, NewlyOutdated)
}

// hasMore says whether a rule objects to a field that it did not object to before. What it says of it may well have changed.
func hasMore(now, before []policy.Violation) bool {
	return slices.ContainsFunc(now, func(v policy.Violation) bool {
		return !slices.ContainsFunc(before, func(w policy.Violation) bool { return v.Rule == w.Rule && v.Field == w.Field })
	})
}

// Summary counts reports.
type Summary struct {
	Workloads     int `json:"workloads"`
	Templates     int `json:"templates,omitempty"` // counted in what follows as well
	Refused       int `json:"refused"`
	Warned        int `json:"warned"`
	Stuck         int `json:"stuck"`
	NotAdopted    int `json:"notAdopted"`
	NoSidecar     int `json:"withoutSidecar"`
	Outdated      int `json:"withOutdatedSidecar"`
	NotUnderstood int `json:"notUnderstood"`
	TakesUnsigned int `json:"takesUnsignedActivity,omitempty"`

	// Of a preview.
	NewlyRefused  int `json:"newlyRefused,omitempty"`
	RefusedMore   int `json:"refusedForMore,omitempty"`
	NewlyAccepted int `json:"newlyAccepted,omitempty"`
	NewlyWarned   int `json:"newlyWarned,omitempty"`
	NewlyStuck    int `json:"newlyStuck,omitempty"`
	NewlyOutdated int `json:"withNewlyOutdatedSidecar,omitempty"`
}

// Refuses says whether something would be refused, or a Pod would not come up; in a preview, by the policy that is previewed alone.
func (s *Summary) Refuses(b Basis) bool {
	if b.Preview {
		return s.NewlyRefused+s.RefusedMore+s.NewlyStuck > 0
	}
	return s.Refused+s.Stuck > 0
}

// Add counts one more.
func (s *Summary) Add(r *Report) {
	count := func(n *int, is bool) {
		if is {
			*n++
		}
	}
	switch {
	case r.NotRead != "":
		return
	case r.Template != "":
		s.Templates++
	default:
		s.Workloads++
	}
	count(&s.NotUnderstood, r.NotUnderstood != "")
	count(&s.Refused, len(r.Refused) > 0)
	count(&s.Warned, len(r.Refused) == 0 && len(r.Warned) > 0)
	count(&s.Stuck, len(r.Stuck) > 0)
	count(&s.NotAdopted, r.Sidecar != "" && !r.Adopted)
	count(&s.NoSidecar, r.Sidecar == SidecarMissing)
	count(&s.Outdated, r.Adopted && r.Sidecar == SidecarOutdated)
	count(&s.TakesUnsigned, r.TakesUnsigned)
	for _, news := range r.News {
		count(&s.NewlyRefused, news == NewlyRefused)
		count(&s.RefusedMore, news == RefusedMore)
		count(&s.NewlyAccepted, news == NewlyAccepted)
		count(&s.NewlyWarned, news == NewlyWarned)
		count(&s.NewlyStuck, news == NewlyStuck)
		count(&s.NewlyOutdated, news == NewlyOutdated)
	}
}

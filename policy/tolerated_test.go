package policy_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy"
)

// FuzzToleratedByCreationAlone: whether a Pod is tolerated that violates a new rule depends on when its owner was created
// and on nothing that a tenant or an agent can write: the metadata of Pod and owner, the names, the user.
func FuzzToleratedByCreationAlone(f *testing.F) {
	f.Add("alice", "v", "2020-01-01T00:00:00Z", int64(-1), uint64(1))
	f.Add("alice", "true", "", int64(0), uint64(2))
	f.Add("", "", "x", int64(3600), uint64(3))
	p := examplePolicy(f)
	fixture := readFixture(f, "testdata/service-links/deny-pod.yaml")
	since := metav1.NewTime(time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC))
	f.Fuzz(func(t *testing.T, name, value, instant string, offset int64, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 0))
		r, _ := fixture.request(t, p)
		created := since.Add(time.Duration(offset%(1<<20)) * time.Second)
		owner := r.Facts.Owner
		owner.Created = metav1.NewTime(created)
		r.RuleTimes = map[string]policy.RuleTime{"service-links": {Since: since}}

		// Everything that others can write.
		early, _ := time.Parse(time.RFC3339, instant)
		pod := r.Object.Meta
		pod.CreationTimestamp = metav1.NewTime(early)
		pod.Annotations = map[string]string{
			lifecycle.Prefix + value: value, lifecycle.AnnotationRenewedAt: instant, "deprecated.daemonset.template.generation": value,
			lifecycle.AnnotationDoNotReap: value,
		}
		pod.Name, pod.GenerateName, pod.Generation = name, value, offset
		pod.Finalizers = []string{value}
		if random.IntN(2) == 0 {
			pod.DeletionTimestamp = &metav1.Time{Time: early}
		}
		for i := range pod.OwnerReferences {
			pod.OwnerReferences[i].Name, pod.OwnerReferences[i].UID = name, "made-up"
		}
		owner.UID = "another"
		owner.Labels = map[string]string{lifecycle.LabelDeployment: owner.Name, lifecycle.LabelUserType: value, value: instant}

		v := p.Review(r)
		denied := slices.ContainsFunc(v.Denials, func(d policy.Violation) bool { return d.Rule == "service-links" })
		if want := !created.Before(since.Time); denied != want {
			t.Errorf("created %s after the rule: denied is %v, want %v; verdict %+v", created.Sub(since.Time), denied, want, v)
		}
	})
}

// A Pod that had a hundred things wrong that are tolerated must not get one more: what is left out of the list is not
// taken for what it had.
func TestUpdateBeyondTheBoundIsNotTolerated(t *testing.T) {
	p := examplePolicy(t)
	fixture := readFixture(t, "testdata/service-links/deny-pod.yaml")
	r, _ := fixture.request(t, p)
	r.RuleTimes = map[string]policy.RuleTime{}
	for _, rule := range policy.Rules() {
		r.RuleTimes[rule.ID] = policy.RuleTime{}
	}
	r.Facts.Owner.Created = now
	for range 150 {
		agent := r.Object.Template.Spec.Containers[0].DeepCopy()
		agent.Image = "nginx"
		r.Object.Template.Spec.InitContainers = append(r.Object.Template.Spec.InitContainers, *agent)
	}
	if v := p.Review(r); !v.Allowed() {
		t.Fatalf("the Pod is refused when it comes back: %s", v.Message())
	}
	r.Operation, r.Subresource, r.User.Username = admissionv1.Update, "ephemeralcontainers", "alice"
	stored := *r.Object
	template := *stored.Template
	template.Spec = template.Spec.DeepCopy()
	stored.Template = &template
	r.Old = &stored
	r.Object.Template.Spec.InitContainers[149].Image = "evil"
	if v := p.Review(r); v.Allowed() {
		t.Errorf("a change behind a hundred tolerated violations is admitted, with %d warnings", len(v.Warnings))
	}
}

package policy_test

import (
	"path/filepath"
	"slices"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/workload"
)

// FuzzReview judges whatever can be decoded. It must come to a verdict, and to a message that is fit for a terminal.
func FuzzReview(f *testing.F) {
	p := examplePolicy(f)
	files, err := filepath.Glob("testdata/*/deny-*.yaml")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds: ", err)
	}
	f.Add(uint8(0), []byte(`{}`), []byte(`{}`), "alice", "Deployment")
	for _, seed := range seeds(f, files) {
		f.Add(seed.kind, seed.object, seed.old, "alice", "Deployment")
		f.Add(seed.kind, seed.object, seed.old, replicaSetController, "StatefulSet")
	}
	f.Fuzz(func(t *testing.T, kind uint8, object, old []byte, user, owner string) {
		gvk := everyKind[int(kind)%len(everyKind)]
		o, err := workload.Decode(gvk, object)
		if err != nil {
			return
		}
		r := &policy.Request{Operation: admissionv1.Create, Namespace: userNamespace, Object: o}
		r.User.Username = user
		if stored, err := workload.Decode(gvk, old); err == nil && kind >= uint8(len(everyKind)) {
			r.Operation, r.Old = admissionv1.Update, stored
		}
		for _, facts := range []*policy.Facts{
			nil, {}, {Owner: &policy.Owner{Kinds: []string{owner}, Name: user}, Claims: map[string]policy.Claim{owner: {Exists: true}}},
		} {
			r.Facts = facts
			p.Needs(r)
			v := p.Review(r)
			checkMessage(t, v)
			if v.Allowed() != (v.Message() == "") {
				t.Errorf("allowed is %v and the message is %q", v.Allowed(), v.Message())
			}
		}
	})
}

type seed struct {
	kind        uint8
	object, old []byte
}

// seeds are the fixtures' requests. Kinds from len(everyKind) on stand for updates.
func seeds(f *testing.F, files []string) []seed {
	f.Helper()
	var all []seed
	for _, file := range files {
		fixture := readFixture(f, file)
		r, _ := fixture.request(f, fixture.policy(f))
		if r.Object == nil {
			continue // see FuzzSelfDelete
		}
		kind := slices.IndexFunc(everyKind, func(gvk schema.GroupVersionKind) bool { return gvk.Kind == r.Object.Kind })
		if r.Old != nil {
			kind += len(everyKind)
		}
		all = append(all, seed{uint8(kind), fixture.object, fixture.stored})
	}
	return all
}

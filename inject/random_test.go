package inject_test

import (
	"math/rand/v2"
	"testing"

	apiequality "k8s.io/apimachinery/pkg/api/equality"

	"github.com/dexorder/agent-lifecycle/inject"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// TestRandom runs injection on Deployments that nobody would think of writing down. A failure prints its input, and
// the same seed makes the same one again.
func TestRandom(t *testing.T) {
	today := map[string]*inject.Injector{}
	before := map[string]*inject.Injector{}
	for _, namespace := range []string{userNamespace, roleNamespace} {
		today[namespace] = injector(t, namespace, sidecarImage)
		before[namespace] = injector(t, namespace, olderSidecar)
	}
	compared := 0
	for seed := range uint64(200) {
		g := &generator{rand.New(rand.NewPCG(seed, 42))}
		namespace := pick(g, userNamespace, roleNamespace)
		opts := inject.Options{RestartRules: g.IntN(2) == 0, ActivityKey: pick(g, "", "before")}
		user := marshal(t, g.deployment())
		stored := run(t, before[namespace], user, nil, opts)

		// What is stored and does not change stays, and what a manifest drops comes back.
		if same := run(t, today[namespace], stored.patched, stored.patched, opts); len(same.patch) > 0 {
			t.Errorf("an update that changes nothing is patched: %s", marshal(t, same.patch))
		}
		again := run(t, today[namespace], user, stored.patched, inject.Options{RestartRules: true, ActivityKey: pick(g, "", "today")})
		if known(stored) {
			compared++
			if !apiequality.Semantic.DeepEqual(again.object.Spec.Template, stored.object.Spec.Template) {
				t.Errorf("applied again, the manifest makes another template:\n%s\nstored:\n%s",
					marshal(t, again.object.Spec.Template), marshal(t, stored.object.Spec.Template))
			}
		}

		// Any other update is injected like a new Deployment.
		other := marshal(t, g.deployment())
		run(t, today[namespace], other, stored.patched, opts)
		run(t, today[namespace], g.damage(t, stored.patched), stored.patched, opts)

		if t.Failed() {
			t.Fatalf("seed %d, namespace %s", seed, namespace)
		}
	}
	if compared < 50 {
		t.Errorf("only %d of 200 Deployments were compared: the generator makes too few that are admitted", compared)
	}
}

// known says whether injection could do all of its work, and policy would have admitted the result.
func known(i injected) bool {
	_, err := lifecycle.ParseUserType(i.object.Labels[lifecycle.LabelUserType])
	sidecars := 0
	for _, c := range i.object.Spec.Template.Spec.Containers {
		if c.Name == lifecycle.SidecarContainer {
			sidecars++
		}
	}
	return err == nil && sidecars == 1
}

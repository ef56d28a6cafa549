package fleet

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy"
)

// An agent that has today's parts in other words lacks none of them. What its Pod would have otherwise makes it
// outdated.
func TestEquivalentParts(t *testing.T) {
	const sidecar = "image: ghcr.io/dexorder/lifecycle-sidecar:v0.1.0"
	mirrored := func(image string) func(*appsv1.Deployment) {
		return func(d *appsv1.Deployment) { policy.SidecarOf(d).Image = image }
	}
	called := func(name string) func(*appsv1.Deployment) {
		return func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Name = name }
	}
	const digest = "@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	const accepted = "    - ghcr.io/dexorder/lifecycle-sidecar\n"
	withMirror := judgeBy(t, accepted, accepted+"    - mirror.example.com/*\n")
	byDigest := judgeBy(t, accepted, accepted+"    - mirror.example.com/*\n", sidecar, sidecar+digest)
	for name, tc := range map[string]struct {
		judge      *Judge
		before     func(*appsv1.Deployment) // the agent as its user wrote it
		after      func(*appsv1.Deployment) // what differs from what was injected
		want       Sidecar
		otherParts bool
	}{
		"its container called otherwise": {judgeBy(t), called("worker"), nil, SidecarCurrent, false},
		"its container called otherwise, from before that was written": {
			judgeBy(t), called("worker"), func(d *appsv1.Deployment) { delete(d.Spec.Template.Annotations, lifecycle.AnnotationAgentContainer) }, SidecarCurrent, false,
		},
		"no sidecar of today's name": {withMirror, nil, mirrored("mirror.example.com/sidecar:v0.0.9"), SidecarOutdated, false},
		"a mirror's":                 {withMirror, nil, mirrored("mirror.example.com/ghcr/lifecycle-sidecar:v0.1.0"), SidecarCurrent, false},
		"a mirror's, not accepted":   {judgeBy(t), nil, mirrored("mirror.example.com/ghcr/lifecycle-sidecar:v0.1.0"), SidecarOutdated, false},
		"a mirror's, by digest":      {byDigest, nil, mirrored("mirror.example.com/lifecycle-sidecar" + digest), SidecarCurrent, false},
		"a mirror's, another digest": {byDigest, nil, mirrored("mirror.example.com/lifecycle-sidecar:v0.1.0"), SidecarOutdated, false},
		"another tag":                {withMirror, nil, mirrored("ghcr.io/dexorder/lifecycle-sidecar:v0.0.9"), SidecarOutdated, false},
		"other settings": {
			judgeBy(t), called("worker"), func(d *appsv1.Deployment) {
				env := &d.Spec.Template.Spec.Containers[0].Env
				*env = slices.DeleteFunc(*env, func(e corev1.EnvVar) bool { return e.Name == lifecycle.EnvIdleTimeoutMinutes })
			}, SidecarOutdated, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := plain(good)
			if tc.before != nil {
				tc.before(d)
			}
			d, _ = tc.judge.Renewed(namespace, d)
			if tc.after != nil {
				tc.after(d)
			}
			e := tc.judge.entry(Namespace{Name: namespace}, d, nil, said{}, &surroundings{}, now)
			if e.Sidecar != tc.want || e.OtherParts != tc.otherParts || (len(e.Upgrade) > 0) != (tc.want != SidecarCurrent) {
				t.Errorf("%s, other parts %t, an upgrade would change %q", e.Sidecar, e.OtherParts, e.Upgrade)
			}
		})
	}
}

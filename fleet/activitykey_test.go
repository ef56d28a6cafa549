package fleet

import (
	"bytes"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/workload"
)

// keyed returns a judge whose server tells agents a key.
func keyed(j *Judge) *Judge {
	other := *j
	other.options.ActivityKey = "the gateway's"
	return &other
}

func withKey(t *testing.T, d *appsv1.Deployment) bool {
	t.Helper()
	for _, e := range d.Spec.Template.Spec.Containers[0].Env {
		if e.Name == lifecycle.EnvActivityKey {
			return true
		}
	}
	return false
}

// TestUpgradeBringsActivityKey: an agent that lacks nothing but the gateway's key is restarted with it, once; where no server has a key
// none is.
func TestUpgradeBringsActivityKey(t *testing.T) {
	j := judgeBy(t)
	a := &fakeAPI{agents: map[string]*appsv1.Deployment{"alice": well(injectedBy(j, plain(good)))}}
	a.patched = func(_ bool, d *appsv1.Deployment) (*appsv1.Deployment, *metav1.Status) { return d, nil }
	if said, tally, err := a.roll(t, j, Upgrade); err != nil || said != "" || len(tally) > 0 || len(a.writes) > 0 {
		t.Errorf("by a server without a key: %q, %v, %v, %d writes", said, tally, err, len(a.writes))
	}
	a.patched = func(_ bool, d *appsv1.Deployment) (*appsv1.Deployment, *metav1.Status) {
		return well(injectedBy(keyed(j), d)), nil
	}
	said, tally, err := a.roll(t, j, Upgrade)
	if err != nil || tally[Renewed] != 1 || len(a.writes) != 1 || !strings.Contains(said, "the environment says by which key the gateway signs") {
		t.Errorf("by one with a key: %q, %v, %v, %d writes", said, tally, err, len(a.writes))
	}
	if !withKey(t, a.agents["alice"]) {
		t.Error("the agent has not got the key")
	}
	if said, tally, err := a.roll(t, j, Upgrade); err != nil || len(tally) > 0 || len(a.writes) != 1 {
		t.Errorf("again: %q, %v, %v, %d writes", said, tally, err, len(a.writes))
	}
}

// TestAuditCountsUnsigned: those that take activity from everybody are counted; what was never admitted is not.
func TestAuditCountsUnsigned(t *testing.T) {
	j := judgeBy(t)
	var s Summary
	for d, want := range map[*appsv1.Deployment]bool{
		injectedBy(j, plain(good)):        true,
		injectedBy(keyed(j), plain(good)): false,
		plain(good):                       false,
	} {
		r := newReport(j, Namespace{Name: namespace}, workload.FromDeployment(d), nil)
		if r.TakesUnsigned != want {
			t.Errorf("%v takes unsigned activity: %t", d.Spec.Template.Spec.Containers[0].Env, r.TakesUnsigned)
		}
		s.Add(r)
	}
	var text bytes.Buffer
	if err := NewTextWriter(&text, Basis{Installed: true}).End(s); err != nil {
		t.Fatal(err)
	}
	if want := "1 take unsigned activity: they get the gateway's key when their template changes, or by kubectl agents upgrade"; !strings.Contains(text.String(), want) {
		t.Errorf("the audit lacks %q:\n%s", want, text.String())
	}
}

package integration

import (
	"net/http"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/reaper"
)

// orphanedSince is what the reaper has written on an object.
func (c *cluster) orphanedSince(t *testing.T, o client.Object) string {
	t.Helper()
	c.get(t, o)
	return o.GetAnnotations()[lifecycle.AnnotationOrphanedSince]
}

func testOrphanedClaims(t *testing.T, c *cluster) {
	const borrows = "agent-borrows"
	r := c.newReaping(t)
	c.roleNamespace(t, borrows)
	orphan, returns := newClaim("left-data", "left", lifecycle.Anonymous), newClaim("returns-data", "returns", lifecycle.Anonymous)
	protected := newClaim("guarded-data", "guarded", lifecycle.Anonymous)
	metav1.SetMetaDataAnnotation(&protected.ObjectMeta, lifecycle.AnnotationDoNotReap, "true")
	mounted := newClaim("worker-data", "worker", lifecycle.Anonymous)
	mounted.Namespace = borrows
	keptOnes := []*corev1.PersistentVolumeClaim{
		protected, mounted, newClaim("free-data", "gone", lifecycle.Free), newClaim("paid-data", "gone", lifecycle.Paid),
		newClaim("plain-data", "gone", ""),
	}
	for _, claim := range append(keptOnes, orphan, returns) {
		c.create(t, claim)
	}
	template := makes("batch")[2].(*batchv1.Job)
	template.Namespace = borrows
	mounting(mounted.Name)(&template.Spec.Template.Spec)
	c.create(t, template)

	r.once(t)
	for _, claim := range []*corev1.PersistentVolumeClaim{orphan, returns} {
		if _, err := time.Parse(time.RFC3339, c.orphanedSince(t, claim)); err != nil {
			t.Errorf("claim %s: %v", claim.Name, err)
		}
	}
	c.live(t, "returns", ofType(lifecycle.Anonymous), pod(mounting(returns.Name)))
	r.clock.pass(9 * time.Minute)
	report := r.once(t)
	if got := verdict(report, "PersistentVolumeClaim", orphan.Name); got != "" || c.deleting(t, orphan) {
		t.Errorf("after nine minutes: %q", got)
	}
	if since := c.orphanedSince(t, returns); since != "" {
		t.Errorf("its agent is back, and it still is an orphan since %s", since)
	}
	r.clock.pass(time.Minute)
	report = r.once(t)
	if got := verdict(report, "PersistentVolumeClaim", orphan.Name); got != "deleted" {
		t.Errorf("after ten minutes: %q, %+v", got, result(t, report, "claims"))
	}
	c.gone(t, orphan)
	r.clock.pass(time.Hour)
	r.once(t)
	r.clock.pass(time.Hour)
	if claims := result(t, r.once(t), "claims"); claims.Candidates != 0 || claims.Error != "" {
		t.Errorf("report: %+v", claims)
	}
	for _, claim := range append(keptOnes, returns) {
		if c.deleting(t, claim) {
			t.Errorf("claim %s was deleted", claim.Name)
		}
	}
	if got := r.heard.of(orphan.Name); len(got) != 1 || got[0] != reaper.ObjectReaped {
		t.Errorf("told of %v", got)
	}
	for _, claim := range keptOnes {
		if claim.Name == mounted.Name {
			continue
		}
		if err := c.Client.Delete(t.Context(), claim); err != nil {
			t.Error(err)
		}
	}
}

// An agent that comes back between the look and the deletion keeps its claim, where that can be seen: its Deployment until the claim
// was last read, whatever writes to the claim until the very end.
func testClaimRaces(t *testing.T, c *cluster) {
	for _, tc := range []struct {
		name, method string
		f            func(*testing.T, *corev1.PersistentVolumeClaim)
	}{
		{"seen", http.MethodGet, func(t *testing.T, claim *corev1.PersistentVolumeClaim) {
			c.create(t, agent("seen", ofType(lifecycle.Anonymous), pod(mounting(claim.Name))))
		}},
		{"touched", http.MethodDelete, func(t *testing.T, claim *corev1.PersistentVolumeClaim) {
			patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"note":"brought back"}}}`))
			if err := c.Client.Patch(t.Context(), claim.DeepCopy(), patch); err != nil {
				t.Error(err)
			}
		}},
	} {
		r := c.newReaping(t)
		claim := newClaim(tc.name+"-data", tc.name, lifecycle.Anonymous)
		c.create(t, claim)
		r.once(t)
		r.clock.pass(10 * time.Minute)
		report := r.once(t, before(tc.method, "/persistentvolumeclaims/"+claim.Name, func() { tc.f(t, claim) }))
		if got := verdict(report, "PersistentVolumeClaim", claim.Name); got != "kept" || c.deleting(t, claim) {
			t.Errorf("%s: verdict %q: %+v", tc.name, got, result(t, report, "claims"))
		}
		if err := c.Client.Delete(t.Context(), claim); err != nil {
			t.Error(err)
		}
	}
}

// A role agent's namespace that has granted nothing does not make passes fail.
func testClaimsWithoutRights(t *testing.T, c *cluster) {
	const name = "agent-closed"
	r := c.newReaping(t)
	c.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{lifecycle.LabelAgentRole: "tester", lifecycle.LabelOrg: "dexorder"},
	}})
	claim := newClaim("closed-data", "closed", lifecycle.Anonymous)
	claim.Namespace = name
	c.create(t, claim)
	report := r.once(t)
	claims, leftovers := result(t, report, "claims"), result(t, report, "leftovers")
	if claims.Error != "" || leftovers.Error != "" {
		t.Errorf("claims: %+v\nleftovers: %+v", claims, leftovers)
	}
	if verdict(report, "PersistentVolumeClaim", claim.Name) != "kept" || leftovers.Kept["no rights in its namespace"] == 0 {
		t.Errorf("claims: %+v\nleftovers: %+v", claims, leftovers)
	}
	for _, d := range leftovers.Decisions {
		if d.Name == name && !strings.Contains(d.Reason, "forbidden") {
			t.Errorf("decision: %+v", d)
		}
	}
	if err := c.Client.Delete(t.Context(), claim); err != nil {
		t.Error(err)
	}
}

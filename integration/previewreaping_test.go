package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/internal/installation"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/reaper"
)

// testAuditReaper: a preview says what the reaper would delete by another policy, touches nothing, and names what the
// caller may not read.
func (f *fleetTest) testAuditReaper(t *testing.T) {
	const ns = "agent-previewed"
	f.roleNamespace(t, ns, func(n *corev1.Namespace) { n.Labels[lifecycle.LabelOrg] = "acme" })
	expired := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "session", Annotations: map[string]string{
		lifecycle.AnnotationExpiresAt: time.Now().Add(-time.Minute).Format(time.RFC3339),
	}}}
	if err := f.inPod(t, ns, "worker-1", "0123").Create(t.Context(), expired); err != nil {
		t.Fatal(err)
	}
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: agents, Name: "orphaned", Labels: map[string]string{
			lifecycle.LabelDeployment: "gone", lifecycle.LabelUserType: "free",
		}},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("1Mi")}},
		},
	}
	f.create(t, claim)
	versions := func() string {
		namespace := f.namespace(t, ns)
		f.get(t, expired)
		f.get(t, claim)
		return fmt.Sprintln(namespace.ResourceVersion, expired.ResourceVersion, claim.ResourceVersion)
	}
	before := versions()

	text := string(v1alpha1.Example())
	for _, change := range [][2]string{
		{"      - genbrain\n", "      - genbrain\n      - acme\n"},
		{"  free:\n    shutdown: WhenIdle\n    idleTimeout: 15m\n    storage: Keep", "  free:\n    shutdown: WhenIdle\n    idleTimeout: 15m\n    storage: Delete"},
	} {
		if !strings.Contains(text, change[0]) {
			t.Fatalf("the example has no %q", change[0])
		}
		text = strings.Replace(text, change[0], change[1], 1)
	}
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var read struct{ Reaper reaper.Changes }
	if err := json.Unmarshal([]byte(f.run(t, 1, "audit", "--policy", file, "-o", "json")), &read); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range read.Reaper.Changes {
		got = append(got, fmt.Sprintf("%s/%s %s: %v, today %s", c.Namespace, c.Kind, c.Name, c.News, c.Today.Reason))
		if c.Then.At.IsZero() || !c.Today.At.IsZero() {
			t.Errorf("%+v", c)
		}
	}
	want := []string{
		`/Namespace agent-previewed: [newly deleted by the reaper], today its label org is "acme", which is none of the policy's`,
		"dexorder-agents/PersistentVolumeClaim orphaned: [newly deleted by the reaper], today its user type keeps storage",
		"agent-previewed/Secret session: [newly deleted by the reaper], today its namespace is not the reaper's",
	}
	if !slices.Equal(got, want) || len(read.Reaper.NotRead) > 0 {
		t.Errorf("%s\nwant\n%s\nnot read: %q", strings.Join(got, "\n"), strings.Join(want, "\n"), read.Reaper.NotRead)
	}
	out := f.run(t, 1, "audit", "--policy", file, "-n", ns)
	if !strings.Contains(out, "agent-previewed/Secret session: newly deleted by the reaper\n  by "+file+": deleted at once: expired at ") ||
		strings.Contains(out, "PersistentVolumeClaim") {
		t.Error(out)
	}
	if after := versions(); after != before {
		t.Errorf("the preview has changed something: %s, before %s", after, before)
	}

	// Who may read nothing is told so, and nothing is said to be deleted.
	today, err := v1alpha1.Decode(v1alpha1.Example())
	if err != nil {
		t.Fatal(err)
	}
	then, err := v1alpha1.Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	stranger := &reaper.Preview{
		Config: f.plane.Impersonate(controlplane.ServiceAccount("default", "stranger")), System: installation.SystemNamespace,
		Today: today, Then: then, Now: time.Now(),
	}
	changes, err := stranger.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(changes.Changes) > 0 || len(changes.NotRead) != 4 || !strings.HasPrefix(changes.NotRead[0], "namespaces: list namespaces: ") {
		t.Errorf("%+v", changes)
	}
	if err := f.Client.Delete(t.Context(), claim); err != nil {
		t.Fatal(err)
	}
}

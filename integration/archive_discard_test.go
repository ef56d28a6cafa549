package integration

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// testDiscard gives up archives by the command, with their volumes as it is told, also when the archive itself has
// gone: as it has after the system was removed.
func testDiscard(t *testing.T, c *archives) {
	plugin := filepath.Join(t.TempDir(), "kubectl-agents")
	if out, err := exec.Command("go", "build", "-o", plugin, "../cmd/kubectl-agents").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := func(wantCode int, args ...string) string {
		t.Helper()
		cmd := exec.Command(plugin, append([]string{"discard", "--kubeconfig", c.plane.Kubeconfig()}, args...)...)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != wantCode {
			t.Fatalf("discard %v: exit code %d, want %d\n%s", args, code, wantCode, out)
		}
		t.Logf("$ kubectl agents discard %s\n%s", strings.Join(args, " "), out)
		return string(out)
	}
	const deleted, kept, lost = "agent-given-up", "agent-given-away", "agent-left-behind"
	for _, name := range []string{deleted, kept, lost} {
		ns := c.role(t, name)
		c.save(t, ns, keepFor)
		if name == deleted {
			if out := run(1, name, "--volumes=delete"); !strings.Contains(out, "namespace agent-given-up, of which archive archive-agent-given-up-") {
				t.Errorf("while the namespace is being reaped:\n%s", out)
			}
		}
		c.reap(t, ns)
	}
	if out := run(1, deleted); !strings.Contains(out, deleted+"-data") || !strings.Contains(out, "--volumes=delete or --volumes=keep") {
		t.Errorf("without a word about the volumes:\n%s", out)
	}
	run(0, deleted, "--dry-run")
	c.expectOne(t, deleted)

	if out := run(0, deleted, "--volumes=delete"); !strings.Contains(out, "persistentvolume agent-given-up-data: deleted") {
		t.Errorf("got:\n%s", out)
	}
	pv := &corev1.PersistentVolume{}
	err := c.Get(t.Context(), client.ObjectKey{Name: deleted + "-data"}, pv)
	if client.IgnoreNotFound(err) != nil || err == nil && (pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete || pv.Labels[lifecycle.LabelArchive] != "") {
		t.Errorf("the volume that was to be deleted: %s %v, %v", pv.Spec.PersistentVolumeReclaimPolicy, pv.Labels, err)
	}
	if out := run(0, kept, "--volumes=keep"); !strings.Contains(out, "persistentvolume agent-given-away-data: kept") {
		t.Errorf("got:\n%s", out)
	}
	if pv := c.volume(t, kept+"-data"); pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRetain ||
		pv.Labels[lifecycle.LabelArchive] != "" || pv.Annotations[lifecycle.AnnotationArchiveName] != "" {
		t.Errorf("the volume that was to be kept: %s %v %v", pv.Spec.PersistentVolumeReclaimPolicy, pv.Labels, pv.Annotations)
	}
	for _, name := range []string{deleted, kept} {
		if indexes, chunks := c.parts(t, name); len(indexes)+len(chunks)+c.ends(t, name) != 0 {
			t.Errorf("%s: %d indexes, %d chunks and %d ends stay", name, len(indexes), len(chunks), c.ends(t, name))
		}
		if out := run(1, name, "--volumes=delete"); !strings.Contains(out, `nothing is kept of "`+name+`"`) {
			t.Errorf("once more:\n%s", out)
		}
	}

	indexes, chunks := c.parts(t, lost)
	for _, o := range append(indexes, chunks...) {
		if err := c.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	if out := run(0); !strings.Contains(out, lost+"-data") || strings.Contains(out, kept+"-data") {
		t.Errorf("the list of volumes:\n%s", out)
	}
	run(0, lost, "--volumes=delete")
	err = c.Get(t.Context(), client.ObjectKey{Name: lost + "-data"}, pv)
	if err == nil && pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete || err != nil && !apierrors.IsNotFound(err) {
		t.Errorf("the volume whose archive is gone: %s, %v", pv.Spec.PersistentVolumeReclaimPolicy, err)
	}
}

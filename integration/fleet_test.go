package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/fleet"
	"github.com/dexorder/agent-lifecycle/idle"
	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/internal/installation"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestFleet: a fleet that was there before the installation is audited, adopted and upgraded by the commands.
func TestFleet(t *testing.T) {
	t.Parallel()
	c := install(t, controlplane.Options{ControllerManager: true})
	f := &fleetTest{cluster: c, plugin: filepath.Join(t.TempDir(), "kubectl-agents")}
	if out, err := exec.Command("go", "build", "-o", f.plugin, "../cmd/kubectl-agents").CombinedOutput(); err != nil {
		t.Fatalf("building the plugin: %v\n%s", err, out)
	}
	t.Run("not installed", f.testNotInstalled)
	c.create(t, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: installation.SystemNamespace, Name: lifecycle.PolicyConfigMap},
		Data:       map[string]string{lifecycle.PolicyKey: string(v1alpha1.Example())},
	})
	t.Run("audit", f.testAudit)
	f.startKubelet(t)
	t.Run("adopt", f.testAdopt)
	t.Run("stops", f.testStops)
	t.Run("interrupted", f.testInterrupted)
	t.Run("upgrade", f.testUpgrade)
}

type fleetTest struct {
	*cluster
	plugin string

	// mu guards broken: agents whose Pods with a sidecar do not become ready, by name.
	mu     sync.Mutex
	broken map[string]bool
}

// run runs the plugin, which must end with the code.
func (f *fleetTest) run(t *testing.T, code int, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), f.plugin, append(args, "--kubeconfig", f.plane.Kubeconfig())...)
	out, err := cmd.CombinedOutput()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("%s: exit code %d, want %d\n%s", strings.Join(args, " "), got, code, out)
	}
	return string(out)
}

// instants are times that differ from run to run.
var instants = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)

func (f *fleetTest) golden(t *testing.T, name, got string) {
	t.Helper()
	got = instants.ReplaceAllString(got, "TIME")
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s: -want +got (-update accepts it)\n%s", name, diff)
	}
}

// before does what must have been done before the installation: without its registrations.
func (f *fleetTest) before(t *testing.T, do func()) {
	t.Helper()
	registrations := []client.Object{
		&admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "agent-lifecycle"}},
		&admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "agent-lifecycle"}},
	}
	for _, o := range registrations {
		f.get(t, o)
		if err := f.Client.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	probe := func(injected bool) func() (bool, error) {
		return func() (bool, error) {
			d := agent("probe")
			err := f.Client.Create(t.Context(), d, client.DryRunAll)
			return hasSidecar(&d.Spec.Template.Spec) == injected, err
		}
	}
	eventually(t, "end of the registrations", probe(false))
	do()
	for _, o := range registrations {
		o.SetResourceVersion("")
		f.create(t, o)
	}
	eventually(t, "registrations", probe(true))
}

// careful is an agent whose Pods are let into a restricted namespace.
func careful(d *appsv1.Deployment) {
	d.Spec.Template.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{
		RunAsNonRoot: ptr(true), RunAsUser: ptr(int64(1000)), AllowPrivilegeEscalation: ptr(false),
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

// labelled is an agent that can be selected.
func labelled(d *appsv1.Deployment) { d.Labels = map[string]string{"app": d.Name} }

func image(name string) func(*appsv1.Deployment) {
	return pod(func(p *corev1.PodSpec) { p.Containers[0].Image = name })
}

func mounts(claim string) func(*appsv1.Deployment) {
	return pod(func(p *corev1.PodSpec) {
		p.Volumes = append(p.Volumes, corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
		}})
	})
}

func (f *fleetTest) testNotInstalled(t *testing.T) {
	f.before(t, func() {
		f.create(t, agent("old-fine", careful, labelled))
		f.create(t, agent("old-image", careful, image("docker.io/library/nginx:1.27")))
		f.create(t, agent("old-loose"))
		f.create(t, agent("old-many", careful, func(d *appsv1.Deployment) { d.Spec.Replicas = ptr(int32(2)) }))
		f.create(t, agent("old-off", careful, func(d *appsv1.Deployment) { d.Spec.Replicas = ptr(int32(0)) }))
		claim := &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: agents, Name: "shared"},
			Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("1Gi")}},
			},
		}
		f.create(t, claim)
		f.create(t, agent("old-storage", careful, mounts(claim.Name), func(d *appsv1.Deployment) { d.Spec.Replicas = ptr(int32(0)) }))
		f.create(t, &batchv1.CronJob{ObjectMeta: metav1.ObjectMeta{Namespace: agents, Name: "nightly"}, Spec: batchv1.CronJobSpec{
			Schedule: "0 0 31 2 *", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever, Containers: agent("x").Spec.Template.Spec.Containers,
			}}}},
		}})
	})
	f.create(t, agent("new", labelled))
	f.golden(t, "audit-not-installed.txt", f.run(t, 1, "audit"))
	f.run(t, 2, "adopt")
	f.run(t, 2, "audit", "-n", "default")
}

func (f *fleetTest) testAudit(t *testing.T) {
	f.golden(t, "audit.txt", f.run(t, 1, "audit", "-A"))
	var report struct {
		Basis     fleet.Basis
		Workloads []fleet.Report
		Summary   fleet.Summary
	}
	if err := json.Unmarshal([]byte(f.run(t, 1, "audit", "-n", agents, "-o", "json")), &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Workloads) != 8 || report.Summary.Workloads != 8 || !report.Basis.Installed || report.Basis.Preview {
		t.Errorf("%d workloads, %+v, %+v", len(report.Workloads), report.Summary, report.Basis)
	}

	// Whoever is refused by the audit is refused by the server, and nobody else; Deployments and their Pods.
	controller := f.as(t, "replicaset-controller")
	for _, r := range report.Workloads {
		if r.Kind != "Deployment" {
			continue
		}
		if err := f.createNextPod(t, controller, r.Name); err != nil != (len(r.Stuck) > 0) && r.Name != "old-off" && r.Name != "old-storage" {
			t.Errorf("the next Pod of %s: the audit says %+v, the server %v", r.Name, r.Stuck, err)
		}
		d := agent(r.Name)
		f.get(t, d)
		patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"template":{"metadata":{"annotations":{"example.com/changed":"yes"}}}}}`))
		err := f.Client.Patch(t.Context(), d, patch, client.DryRunAll)
		if refused := err != nil; refused != (len(r.Refused) > 0) {
			t.Errorf("%s: the audit says %+v, the server %v", r.Name, r.Refused, err)
		}
		for _, finding := range r.Refused {
			if err != nil && !strings.Contains(err.Error(), finding.Field+": "+finding.Message) {
				t.Errorf("%s: the audit says %s, the server %v", r.Name, finding, err)
			}
		}
	}

	// What another controller makes is nobody's whom a rule knows.
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: agents, Name: "workflow-step", OwnerReferences: []metav1.OwnerReference{{
		APIVersion: "argoproj.io/v1alpha1", Kind: "Workflow", Name: "w", UID: "w", Controller: ptr(true),
	}}}, Spec: agent("other", careful).Spec.Template.Spec}
	f.before(t, func() { f.create(t, pod) })
	if out := f.run(t, 1, "audit"); !strings.Contains(out, "dexorder-agents/Pod workflow-step: would be refused\n") {
		t.Error(out)
	}
	if err := f.Client.Delete(t.Context(), pod, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}

	changed := bytes.Replace(v1alpha1.Example(), []byte("          - ghcr.io/dexorder/*\n"), []byte("          - docker.io/library/nginx\n"), 1)
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	f.golden(t, "audit-preview.txt", strings.ReplaceAll(f.run(t, 1, "audit", "--policy", file), file, "policy.yaml"))
	same := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(same, v1alpha1.Example(), 0o600); err != nil {
		t.Fatal(err)
	}
	// Four lines, and one for each profile's rules since when they hold.
	if out := f.run(t, 0, "audit", "--policy", same); strings.Count(out, "\n") != 4+strings.Count(out, " is enforced since ") {
		t.Errorf("a preview of what is in force has news:\n%s", out)
	}
	f.testAuditReaper(t)
	if out := f.run(t, 2, "audit", "-n", "default"); !strings.Contains(out, `--namespace "default" is not covered by the policy; covered are dexorder-agents, agent-*`) {
		t.Error(out)
	}
}

// createNextPod asks in a dry run for the Pod that the ReplicaSet of an agent would make.
func (f *fleetTest) createNextPod(t *testing.T, controller client.Client, name string) error {
	t.Helper()
	var sets appsv1.ReplicaSetList
	if err := f.Client.List(t.Context(), &sets, client.InNamespace(agents), client.MatchingLabels{"app": name}); err != nil {
		t.Fatal(err)
	}
	if len(sets.Items) != 1 {
		t.Fatalf("%s has %d ReplicaSets, want 1", name, len(sets.Items))
	}
	set := &sets.Items[0]
	pod := &corev1.Pod{ObjectMeta: *set.Spec.Template.ObjectMeta.DeepCopy(), Spec: set.Spec.Template.Spec}
	pod.Namespace, pod.GenerateName = agents, set.Name+"-"
	pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(set, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}
	return controller.Create(t.Context(), pod, client.DryRunAll)
}

// startKubelet gives Pods the status of Pods that run, and an address where a lifecycle manager may be.
func (f *fleetTest) startKubelet(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			var pods corev1.PodList
			if err := f.Client.List(ctx, &pods, client.InNamespace(agents)); err == nil {
				for i := range pods.Items {
					f.report(ctx, &pods.Items[i])
				}
			}
			time.Sleep(100 * time.Millisecond)
		}
	}()
}

func (f *fleetTest) report(ctx context.Context, pod *corev1.Pod) {
	if pod.DeletionTimestamp != nil {
		_ = f.Client.Delete(ctx, pod, client.GracePeriodSeconds(0))
		return
	}
	f.mu.Lock()
	broken := f.broken[pod.Labels["app"]] && hasSidecar(&pod.Spec)
	f.mu.Unlock()
	ready, began := corev1.ConditionTrue, metav1.NewTime(pod.CreationTimestamp.Time)
	state := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: began}}
	if broken {
		ready, state = corev1.ConditionFalse, corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == ready {
			return
		}
	}
	pod.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, StartTime: &began, PodIP: hostIP(), PodIPs: []corev1.PodIP{{IP: hostIP()}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready, LastTransitionTime: began}},
	}
	for _, c := range pod.Spec.Containers {
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, State: state, Ready: !broken, ContainerID: "containerd://" + c.Name,
		})
	}
	_ = f.Client.Status().Update(ctx, pod) // again in a moment if it changed
}

// breaks lets the Pods of these agents, and of no others, not become ready from now on.
func (f *fleetTest) breaks(names ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = map[string]bool{}
	for _, name := range names {
		f.broken[name] = true
	}
}

// hostIP is an address of this machine that the API server takes for a Pod's.
func hostIP() string {
	addresses, _ := net.InterfaceAddrs()
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	return ""
}

// uid of the Pod that an agent has; empty if it has none.
func (f *fleetTest) podUID(t *testing.T, name string) types.UID {
	t.Helper()
	var pods corev1.PodList
	if err := f.Client.List(t.Context(), &pods, client.InNamespace(agents), client.MatchingLabels{"app": name}); err != nil {
		t.Fatal(err)
	}
	for i := range pods.Items {
		if pods.Items[i].DeletionTimestamp == nil {
			return pods.Items[i].UID
		}
	}
	return ""
}

func (f *fleetTest) ready(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		d := agent(name)
		eventually(t, name+" to be ready", func() (bool, error) {
			err := f.Client.Get(t.Context(), client.ObjectKeyFromObject(d), d)
			return d.Status.ReadyReplicas == *d.Spec.Replicas, err
		})
	}
}

func (f *fleetTest) sidecar(t *testing.T, name string) string {
	t.Helper()
	d := agent(name)
	f.get(t, d)
	if c := policy.SidecarOf(d); c != nil {
		return c.Image
	}
	return ""
}

func (f *fleetTest) testAdopt(t *testing.T) {
	f.ready(t, "old-fine", "old-image", "new")
	fine, image := f.podUID(t, "old-fine"), f.podUID(t, "old-image")
	// A moment ago the Deployments' status was written; what is compared must be at rest.
	f.golden(t, "adopt-dry-run.txt", f.steady(t, f.run(t, 1, "adopt", "--dry-run", "--restart-working")))
	if f.podUID(t, "old-fine") != fine || f.sidecar(t, "old-fine") != "" {
		t.Error("a dry run changed something")
	}

	// Nobody says that he is idle: only the agent that does not run is adopted.
	f.golden(t, "adopt-idle.txt", f.steady(t, f.run(t, 1, "adopt", "--rate", "100/s")))
	if f.podUID(t, "old-fine") != fine || f.sidecar(t, "old-fine") != "" || f.sidecar(t, "old-off") == "" {
		t.Error("adopt without --restart-working: old-fine must be as it was, old-off adopted")
	}
	out := f.run(t, 1, "adopt", "--rate", "100/s", "--restart-working")
	if !strings.Contains(out, "dexorder-agents/old-fine: done\n") || strings.Contains(out, "old-off") {
		t.Error(out)
	}
	if f.podUID(t, "old-fine") == fine || f.sidecar(t, "old-fine") == "" || f.podUID(t, "old-image") != image || f.sidecar(t, "old-image") != "" {
		t.Error("adopt --restart-working: old-fine must have a Pod with a sidecar, old-image be as it was")
	}
	// Nothing is left to do for those that are selected; without a selector it ended with 1.
	if out := f.run(t, 0, "adopt", "-l", "app=old-fine"); out != "nothing is to be done\n" {
		t.Error(out)
	}

	// The manifest of before, applied again, changes no template, so that nothing restarts.
	eventually(t, "update", func() (bool, error) {
		live, again := agent("old-fine"), agent("old-fine", careful, labelled)
		f.get(t, live)
		again.ResourceVersion = live.ResourceVersion
		err := f.Client.Update(t.Context(), again)
		if diff := cmp.Diff(live.Spec.Template, again.Spec.Template); err == nil && diff != "" {
			t.Errorf("the manifest was applied again, and the agent restarted: -before +after\n%s", diff)
		}
		return err == nil, err
	})
}

// steady replaces names that differ from run to run.
func (f *fleetTest) steady(t *testing.T, out string) string {
	t.Helper()
	var pods corev1.PodList
	if err := f.Client.List(t.Context(), &pods, client.InNamespace(agents)); err != nil {
		t.Fatal(err)
	}
	for i := range pods.Items {
		out = strings.ReplaceAll(out, pods.Items[i].Name, pods.Items[i].Labels["app"]+"-POD")
	}
	return strings.ReplaceAll(out, hostIP(), "IP")
}

func (f *fleetTest) testStops(t *testing.T) {
	f.before(t, func() {
		f.create(t, agent("stop-a", careful, labelled)) // works, so that it is put off
		f.create(t, agent("stop-b", labelled))          // has no Pod, so that it is the first
		f.create(t, agent("stop-c", labelled))          // would be the next
	})
	f.ready(t, "stop-a")
	working := f.podUID(t, "stop-a")
	eventually(t, "no Pod", func() (bool, error) {
		b, c := agent("stop-b"), agent("stop-c")
		f.get(t, b)
		f.get(t, c)
		return b.Status.ObservedGeneration > 0 && c.Status.ObservedGeneration > 0, nil
	})
	f.breaks("stop-b")
	args := []string{"adopt", "--restart-working", "--rate", "100/s", "-l", "app in (stop-a,stop-b,stop-c)"}
	out := f.run(t, 1, append(args, "--ready-within", "3s")...)
	if !strings.Contains(out, "stop-b: failed: it was restarted and is not ready after 3s: Pod stop-b-") ||
		!strings.Contains(out, "CrashLoopBackOff") || !strings.Contains(out, "To undo it, say in the manifest") ||
		!strings.Contains(out, "stopped at an agent that did not become ready") || strings.Contains(out, "stop-a") || strings.Contains(out, "stop-c") {
		t.Error(out)
	}
	if f.podUID(t, "stop-a") != working || f.sidecar(t, "stop-a")+f.sidecar(t, "stop-c") != "" {
		t.Error("it did not stop")
	}

	// Run again after its time, it stops at the same one, until that is skipped.
	again := slices.Concat(args, []string{"--ready-within", "1s"})
	if out := f.run(t, 1, again...); !strings.Contains(out, "stop-b: failed: an earlier run has restarted it, and it has not been ready since: Pod stop-b-") ||
		!strings.Contains(out, "use --skip-failed") {
		t.Error(out)
	}
	if out := f.run(t, 1, append(again, "--skip-failed", "--dry-run")...); !strings.Contains(out, "stop-b: left out: an earlier run") ||
		!strings.Contains(out, "stop-c: would be done") {
		t.Error(out)
	}
	if f.podUID(t, "stop-a") != working || f.sidecar(t, "stop-a")+f.sidecar(t, "stop-c") != "" {
		t.Error("the second run did not stop")
	}

	// Run again, it waits for the one that is under way, and goes on when that is ready.
	recovered := time.AfterFunc(time.Second, func() { f.breaks() })
	defer recovered.Stop()
	out = f.run(t, 0, append(args, "--ready-within", "1m")...)
	if !strings.Contains(out, "dexorder-agents/stop-b: done\ndexorder-agents/stop-c: done\n") || !strings.Contains(out, "dexorder-agents/stop-a: done\n") ||
		strings.Index(out, "stop-a") < strings.Index(out, "stop-c") {
		t.Error(out)
	}
	if f.sidecar(t, "stop-a") == "" || f.podUID(t, "stop-a") == working {
		t.Error("stop-a is not adopted")
	}
}

// testInterrupted: who interrupts it leaves no agent half way, and none is begun.
func (f *fleetTest) testInterrupted(t *testing.T) {
	f.before(t, func() {
		f.create(t, agent("wait-a", careful, labelled))
		f.create(t, agent("wait-b", careful, labelled))
	})
	f.ready(t, "wait-a", "wait-b")
	f.breaks("wait-a")
	defer f.breaks()
	cmd := exec.CommandContext(t.Context(), f.plugin, "adopt", "--restart-working", "--rate", "100/s", "-l", "app in (wait-a,wait-b)",
		"--kubeconfig", f.plane.Kubeconfig())
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "restart of wait-a", func() (bool, error) { return f.sidecar(t, "wait-a") != "", nil })
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // it must still be there then
	f.breaks()
	err := cmd.Wait()
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out.String(), "wait-a: done\n") ||
		!strings.Contains(out.String(), "interrupted; run this again to go on") || strings.Contains(out.String(), "wait-b") {
		t.Errorf("%v\n%s", err, out.String())
	}
	if f.sidecar(t, "wait-b") != "" {
		t.Error("wait-b was begun")
	}
}

// manager is the lifecycle manager of every Pod here, since all have one address. It says what the function says of the nth question.
func (f *fleetTest) manager(t *testing.T, answer func(n int) idle.Status) {
	t.Helper()
	n := 0
	f.answer(t, func(w http.ResponseWriter, _ *http.Request) {
		n++
		_ = json.NewEncoder(w).Encode(answer(n))
	})
}

// answer is what answers in place of every lifecycle manager.
func (f *fleetTest) answer(t *testing.T, handler http.HandlerFunc) {
	t.Helper()
	var listener net.Listener
	// Another run of this test, from another checkout, has the same address and port for a moment.
	eventually(t, "free port 8377", func() (ok bool, err error) {
		listener, err = net.Listen("tcp", net.JoinHostPort(hostIP(), "8377"))
		return err == nil, err
	})
	server := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close(); <-done })
}

func says(state lifecycle.State, keepers ...idle.Keeper) idle.Status {
	return idle.Status{
		State: state, IdleShutdown: true, LastActivity: idle.Activity{Source: "chat", At: time.Now().Add(-time.Hour)}, KeptAliveBy: append([]idle.Keeper{}, keepers...),
	}
}

func (f *fleetTest) testUpgrade(t *testing.T) {
	const older, newer = "ghcr.io/dexorder/lifecycle-sidecar:v0.1.0", "ghcr.io/dexorder/lifecycle-sidecar:v0.2.0"
	// published is the policy as operators see it, inForce as the servers have it.
	published := func(sidecar string) []byte {
		next := bytes.Replace(v1alpha1.Example(), []byte("image: "+older), []byte("image: "+sidecar), 1)
		config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: installation.SystemNamespace, Name: lifecycle.PolicyConfigMap}}
		f.get(t, config)
		config.Data[lifecycle.PolicyKey] = string(next)
		if err := f.Client.Update(t.Context(), config); err != nil {
			t.Fatal(err)
		}
		return next
	}
	inForce := func(policyFile []byte, sidecar string) {
		if err := f.WritePolicy(policyFile); err != nil {
			t.Fatal(err)
		}
		eventually(t, "policy with sidecar "+sidecar, func() (bool, error) {
			probe := agent("probe")
			err := f.Client.Create(t.Context(), probe, client.DryRunAll)
			c := policy.SidecarOf(probe)
			return c != nil && c.Image == sidecar, err
		})
	}
	next := published(newer)
	f.ready(t, "new", "old-fine")
	upgrade := []string{"upgrade", "--only-idle", "--rate", "100/s", "-l", "app=new"}
	before := f.podUID(t, "new")
	untouched := func(t *testing.T) {
		t.Helper()
		if f.podUID(t, "new") != before || f.sidecar(t, "new") != older {
			t.Error("the agent was restarted")
		}
	}
	t.Run("the servers do not know yet", func(t *testing.T) {
		f.manager(t, func(int) idle.Status { return says(lifecycle.Idle) })
		if out := f.run(t, 2, upgrade...); !strings.Contains(out, "either a server has not taken the policy up yet") {
			t.Error(out)
		}
		untouched(t)
	})
	t.Run("the servers do not know other settings yet", func(t *testing.T) {
		f.manager(t, func(int) idle.Status { return says(lifecycle.Idle) })
		config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: installation.SystemNamespace, Name: lifecycle.PolicyConfigMap}}
		f.get(t, config)
		config.Data[lifecycle.PolicyKey] = strings.Replace(string(v1alpha1.Example()), "memory: 32Mi", "memory: 48Mi", 1)
		if err := f.Client.Update(t.Context(), config); err != nil {
			t.Fatal(err)
		}
		if out := f.run(t, 2, upgrade...); !strings.Contains(out, "agent dexorder-agents/new: the webhook does not inject what the policy in force says") ||
			strings.Contains(out, "nothing is to be done") {
			t.Error(out)
		}
		untouched(t)
		published(newer)
	})
	inForce(next, newer)
	t.Run("works", func(t *testing.T) {
		f.manager(t, func(int) idle.Status { return says(lifecycle.Running, idle.Keeper{Kind: "lease", ID: "report"}) })
		if out := f.run(t, 1, upgrade...); out != "dexorder-agents/new: left out: it says that it works: lease \"report\"\n1 left out\n" {
			t.Error(out)
		}
		untouched(t)
	})
	t.Run("cannot be asked", func(t *testing.T) {
		if out := f.run(t, 1, upgrade...); !strings.Contains(out, "new: left out: Pod ") || !strings.Contains(out, "cannot be asked whether it is idle") {
			t.Error(out)
		}
		untouched(t)
	})
	t.Run("sends elsewhere", func(t *testing.T) {
		// What it is sent to says that the agent is idle, and must not get the operator's credentials.
		var asked atomic.Bool
		elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			asked.Store(true)
			_ = json.NewEncoder(w).Encode(says(lifecycle.Idle))
		}))
		defer elsewhere.Close()
		f.answer(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) })
		if out := f.run(t, 1, upgrade...); !strings.Contains(out, "cannot be asked whether it is idle") || asked.Load() {
			t.Errorf("asked elsewhere: %t\n%s", asked.Load(), out)
		}
		untouched(t)
	})
	t.Run("begins to work at the last moment", func(t *testing.T) {
		f.manager(t, func(n int) idle.Status {
			if n == 1 {
				return says(lifecycle.Idle)
			}
			return says(lifecycle.Running, idle.Keeper{Kind: "trigger", ID: "chat"})
		})
		if out := f.run(t, 1, upgrade...); out != "dexorder-agents/new: left out: it says that it works: trigger \"chat\"\n1 left out\n" {
			t.Error(out)
		}
		untouched(t)
	})
	t.Run("is changed at the last moment", func(t *testing.T) {
		patch := func(paused string) error {
			return f.Client.Patch(context.WithoutCancel(t.Context()), agent("new"),
				client.RawPatch(types.MergePatchType, []byte(`{"spec":{"paused":`+paused+`}}`)))
		}
		f.manager(t, func(n int) idle.Status {
			if n == 2 {
				if err := patch("true"); err != nil {
					t.Error(err)
				}
			}
			return says(lifecycle.Idle)
		})
		if out := f.run(t, 1, append(upgrade, "--ready-within", "5s")...); !strings.Contains(out, "new: left out: its rollouts are paused") {
			t.Error(out)
		}
		if err := patch("null"); err != nil {
			t.Fatal(err)
		}
		f.ready(t, "new")
		untouched(t)
	})
	t.Run("idle", func(t *testing.T) {
		var state atomic.Value
		state.Store(lifecycle.Idle)
		f.manager(t, func(int) idle.Status { return says(state.Load().(lifecycle.State)) })
		if out := f.run(t, 1, append(upgrade, "--dry-run")...); out != "dexorder-agents/new: would be done\n  sidecar "+older+" becomes "+newer+"\n1 would be done\n" {
			t.Error(out)
		}
		untouched(t)
		if out := f.run(t, 0, upgrade...); out != "dexorder-agents/new: done\n  sidecar "+older+" becomes "+newer+"\n1 done\n" {
			t.Error(out)
		}
		if f.sidecar(t, "new") != newer || f.podUID(t, "new") == before {
			t.Error("the agent was not upgraded")
		}
		if out := f.run(t, 0, upgrade...); out != "nothing is to be done\n" {
			t.Error(out)
		}
		// What may be interrupted for an upgrade is not IDLE before its manager has warned it.
		for _, says := range []lifecycle.State{lifecycle.Running, lifecycle.Idle} {
			state.Store(says)
			list := f.run(t, 0, "list", "-l", "app=new")
			if !strings.Contains(list, string(says)) || !strings.Contains(list, newer) {
				t.Errorf("the list does not say %s:\n%s", says, list)
			}
			if shown := f.run(t, 0, "status", "new"); !strings.HasPrefix(shown, "dexorder-agents/new: "+string(says)+" since ") ||
				!strings.Contains(shown, "reason:    last active (") {
				t.Errorf("the status does not say %s:\n%s", says, shown)
			}
		}
		f.run(t, 1, "status", "nobody")
	})
	t.Run("does not come up, and goes back", func(t *testing.T) {
		f.manager(t, func(int) idle.Status { return says(lifecycle.Idle) })
		f.breaks("new")
		const worse = "ghcr.io/dexorder/lifecycle-sidecar:v0.3.0"
		inForce(published(worse), worse)
		if out := f.run(t, 1, append(upgrade, "--ready-within", "2s")...); !strings.Contains(out, "new: failed: it was restarted and is not ready after 2s") {
			t.Error(out)
		}
		inForce(published(newer), newer)
		recovered := time.AfterFunc(time.Second, func() { f.breaks() })
		defer recovered.Stop()
		if out := f.run(t, 0, upgrade...); !strings.Contains(out, "new: done\n  sidecar "+worse+" becomes "+newer) {
			t.Error(out)
		}
	})
}

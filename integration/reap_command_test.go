package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/internal/installation"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/reaper"
)

// command is the reaper as a process, with the rights of the manifests.
type command struct {
	*reaping
	dir, kubeconfig string
}

func (r *reaping) command(t *testing.T) *command {
	t.Helper()
	config, err := clientcmd.LoadFromFile(r.plane.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	account := controlplane.ServiceAccount(installation.SystemNamespace, installation.ServerAccount)
	for _, user := range config.AuthInfos {
		user.Impersonate, user.ImpersonateGroups = account.UserName, account.Groups
	}
	c := &command{reaping: r, dir: t.TempDir()}
	c.kubeconfig = filepath.Join(c.dir, "kubeconfig")
	if err := clientcmd.WriteToFile(*config, c.kubeconfig); err != nil {
		t.Fatal(err)
	}
	return c
}

// policyFile writes the example, whose patience is ten seconds here, changed further.
func (c *command) policyFile(t *testing.T, name string, changes ...string) string {
	t.Helper()
	policy := string(v1alpha1.Example())
	changes = append([]string{
		"- dexorder\n      - genbrain", "- " + c.policy.Reaper.Namespaces.Orgs[0],
		"idleAfter: 1h", "idleAfter: 10s", "sightings: 2", "sightings: 1", "interval: 1m", "interval: 1s",
	}, changes...)
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(policy, changes[i]) {
			t.Fatalf("the example has no %q", changes[i])
		}
		policy = strings.Replace(policy, changes[i], changes[i+1], 1)
	}
	file := filepath.Join(c.dir, name)
	if err := os.WriteFile(file, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// runs runs it to its end.
func (c *command) runs(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	process := exec.CommandContext(t.Context(), program, append([]string{"reap"}, args...)...)
	process.Stdout, process.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := process.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return process.ProcessState.ExitCode(), out.String(), errs.String()
}

// once makes a pass and reads its report.
func (c *command) once(t *testing.T, wantCode int, policy string, args ...string) *reaper.Report {
	t.Helper()
	code, stdout, stderr := c.runs(t, append([]string{"--once", "-o", "json", "--kubeconfig", c.kubeconfig, "--policy", policy}, args...)...)
	if code != wantCode {
		t.Errorf("exit code %d, want %d:\n%s%s", code, wantCode, stdout, stderr)
	}
	report := &reaper.Report{}
	decoder := json.NewDecoder(strings.NewReader(stdout))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(report); err != nil || len(report.Reapers) == 0 || report.Reapers[0].Reaper != "namespaces" {
		t.Fatalf("the report cannot be read: %v\n%s", err, stdout)
	}
	return report
}

// testReapCommand shows what a CronJob sees of a pass: exit codes, and a report that a program can read.
func testReapCommand(t *testing.T, r *reaping) {
	c := r.command(t)
	names := []string{"agent-command-a", "agent-command-b", "agent-command-c"}
	for _, name := range names {
		c.own(t, name)
	}
	// Without it the reaper looks on, and may delete nothing.
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: names[2], Name: "lifecycle-reaper"}}
	if err := c.Client.Delete(t.Context(), binding); err != nil {
		t.Fatal(err)
	}
	policy := c.policyFile(t, "policy.yaml")
	report := c.once(t, 0, policy)
	if report.Failed() || report.Reapers[0].Examined != len(names) {
		t.Errorf("report: %+v", report.Reapers[0])
	}
	seen := time.Now()

	nowhere := filepath.Join(c.dir, "nowhere")
	away, err := clientcmd.LoadFromFile(c.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range away.Clusters {
		server.Server = "https://127.0.0.1:1"
	}
	if err := clientcmd.WriteToFile(*away, nowhere); err != nil {
		t.Fatal(err)
	}
	wrong := c.policyFile(t, "wrong.yaml", "parallelism: 4", "parallelism: 4000")
	for _, tc := range []struct {
		args string
		code int
		want []string
	}{
		{"--once --kubeconfig " + nowhere + " --timeout 2s --policy " + policy, 1, []string{"not done after --timeout 2s", "cannot be read", "connection refused"}},
		{"--once --kubeconfig " + c.kubeconfig + " --policy " + wrong, 1, []string{"reaper.parallelism", "4000"}},
		{"--once --kubeconfig " + c.kubeconfig + " --policy " + c.dir + "/none", 1, []string{"none"}},
		{"--once -o xml --policy " + policy, 2, []string{`-o "xml": there are text and json`}},
		{"--once", 2, []string{"--policy is required"}},
	} {
		code, _, stderr := c.runs(t, strings.Fields(tc.args)...)
		if code != tc.code {
			t.Errorf("%s: exit code %d, want %d: %s", tc.args, code, tc.code, stderr)
		}
		for _, want := range tc.want {
			if !strings.Contains(stderr, want) {
				t.Errorf("%s: %q is not said: %s", tc.args, want, stderr)
			}
		}
	}

	time.Sleep(time.Until(seen.Add(11 * time.Second)))
	before := c.versions(t, names...)
	report = c.once(t, 0, policy, "--dry-run")
	for _, name := range names {
		if got := verdict(report, "Namespace", name); got != "would be marked" {
			t.Errorf("namespace %s: verdict %q, want would be marked", name, got)
		}
	}
	capped := c.policyFile(t, "capped.yaml", "count: 50", "count: 1")
	c.once(t, 3, capped, "--dry-run")
	if after := c.versions(t, names...); !slices.Equal(before, after) {
		t.Errorf("a dry run wrote; versions before and after:\n%v\n%v", before, after)
	}
	if events := c.capEvents(t); len(events) > 0 {
		t.Errorf("a dry run made events: %+v", events)
	}
	if report = c.once(t, 3, capped); !report.CapExceeded() || report.Reapers[0].Reaped > 0 {
		t.Errorf("report: %+v", report.Reapers[0])
	}
	if events := c.capEvents(t); len(events) != 1 || !strings.Contains(events[0].Message, "2 of 3 namespaces would go") {
		t.Errorf("events: %+v", events)
	}
	for _, name := range names {
		c.untouched(t, name)
	}
	c.once(t, 0, policy) // marks them
	report = c.once(t, 0, policy)
	if result := report.Reapers[0]; result.Reaped != 2 || result.Kept["ungranted"] != 1 {
		t.Errorf("report: %+v", result)
	}
	if ns := c.namespace(t, names[2]); ns.Annotations[lifecycle.AnnotationReaping] != "" {
		t.Errorf("namespace %s is marked, though it lets nobody take it apart", names[2])
	}
	c.goes(t, names[:2]...)
	c.untouched(t, names[2])
}

// capEvents are Kubernetes Events of a pass that would have deleted too much.
func (c *command) capEvents(t *testing.T) []corev1.Event {
	t.Helper()
	var list corev1.EventList
	if err := c.Client.List(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(list.Items, func(e corev1.Event) bool { return e.Reason != "CapExceeded" })
}

// loops starts it as a loop.
func (c *command) loops(t *testing.T, policy string) *exec.Cmd {
	t.Helper()
	log, err := os.Create(filepath.Join(c.dir, fmt.Sprintf("loop-%d.log", time.Now().UnixNano())))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	process := exec.Command(program, "reap", "--kubeconfig", c.kubeconfig, "--policy", policy, "--health-listen", "127.0.0.1:0")
	process.Stdout, process.Stderr = log, log
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("%s:\n%s", log.Name(), text)
		}
	})
	return process
}

// testReapProcesses kills the process that leads: another one goes on within 20 s. One that is asked to stop ends well, and leaves the
// Lease to whoever comes.
func testReapProcesses(t *testing.T, r *reaping) {
	c := r.command(t)
	policy := c.policyFile(t, "policy.yaml")
	holds := func(process *exec.Cmd) func() (bool, error) {
		return func() (bool, error) {
			holder := c.lease(t).Spec.HolderIdentity
			return holder != nil && strings.HasSuffix(*holder, fmt.Sprintf("-%d", process.Process.Pid)), nil
		}
	}
	first := c.loops(t, policy)
	eventually(t, "first leader", holds(first))
	second := c.loops(t, policy)
	c.own(t, "agent-processes")
	sees := func() (bool, error) {
		return c.namespace(t, "agent-processes").Annotations[lifecycle.AnnotationIdleSince] != "", nil
	}
	eventually(t, "work of the first", sees)

	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	c.annotate(t, bare("agent-processes"), lifecycle.AnnotationIdleSince, "")
	eventually(t, "work of the second", sees)
	if took := time.Since(killed); took > 20*time.Second {
		t.Errorf("it took over after %s", took)
	}
	if ok, _ := holds(second)(); !ok {
		t.Errorf("the Lease is %+v", c.lease(t).Spec)
	}
	if err := second.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- second.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the second ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the second has not ended within 10 s of SIGTERM")
	}
	if holder := c.lease(t).Spec.HolderIdentity; holder != nil && *holder != "" {
		t.Errorf("the Lease is still held by %s", *holder)
	}
}

//go:build e2e

package installation

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// block is a fenced block of shell commands. Its word says what to do with it: none that it is run, "refused" that its last command
// must fail, "prepare" that the tests have done the same already: built the images, made the cluster and loaded it.
type block struct{ word, commands string }

const fence = "```"

func blocks(t *testing.T, page string) []block {
	t.Helper()
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var all []block
	inside := false
	for line := range strings.Lines(string(content)) {
		word, opens := strings.CutPrefix(strings.TrimSpace(line), fence+"sh")
		switch {
		case opens:
			inside = true
			all = append(all, block{word: strings.TrimSpace(word)})
		case strings.HasPrefix(line, fence):
			inside = false
		case inside:
			all[len(all)-1].commands += line
		}
	}
	return all
}

// TestGettingStarted runs what docs/getting-started.md tells its readers to, in their order and in one shell.
func TestGettingStarted(t *testing.T) {
	clean(t)
	t.Cleanup(func() { discardGettingStarted(t) })
	loadAs(t, "dev")
	script := "set -eu -o pipefail\n"
	for _, b := range blocks(t, "../../docs/getting-started.md") {
		switch b.word {
		case "":
			script += b.commands
		case "refused":
			script += "if " + strings.TrimSpace(b.commands) + "; then echo 'this was to be refused'; exit 1; fi\n"
		case "prepare":
		default:
			t.Fatalf("a block of shell commands is marked %q: want nothing, refused or prepare", b.word)
		}
	}
	if strings.Count(script, "\n") < 30 {
		t.Fatalf("the page has hardly any commands:\n%s", script)
	}
	shell(t, script)
}

// shell runs the script where a reader would, in the checkout, with the plugin on the path.
func shell(t *testing.T, script string) {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(path, "kubectl-agents"), "../../cmd/kubectl-agents").CombinedOutput()
	if err != nil {
		t.Fatalf("build kubectl-agents: %v: %s", err, out)
	}
	if kubectl := os.Getenv("KUBECTL"); kubectl != "" {
		path += ":" + filepath.Dir(kubectl)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-x", "-c", script)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "PATH="+path+":"+os.Getenv("PATH"))
	// What runs in the background goes with the shell.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	kill := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel = kill
	cmd.WaitDelay = 10 * time.Second
	log := filepath.Join(t.TempDir(), "log")
	file, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	err = cmd.Run()
	_ = kill()
	said, readErr := os.ReadFile(log)
	if err != nil || readErr != nil {
		t.Fatalf("%v, %v:\n%s", err, readErr, said)
	}
}

// loadAs gives the images to test another tag on the node, which is where the page's overlay looks for them.
func loadAs(t *testing.T, tag string) {
	t.Helper()
	nodes, err := client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range nodes.Items {
		for _, image := range current.images {
			name := image[:strings.LastIndex(image, ":")]
			out, err := exec.CommandContext(t.Context(), "docker", "exec", nodes.Items[i].Name,
				"ctr", "--namespace", "k8s.io", "images", "tag", "--force", image, name+":"+tag).CombinedOutput()
			if err != nil {
				t.Fatalf("tag %s: %v: %s", image, err, out)
			}
		}
	}
}

// discardGettingStarted removes what the page leaves to its reader.
func discardGettingStarted(t *testing.T) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	for _, err := range []error{
		client.CoreV1().ServiceAccounts("default").Delete(ctx, "frontend", metav1.DeleteOptions{}),
		client.CoreV1().Namespaces().Delete(ctx, "agent-marketing", metav1.DeleteOptions{}),
	} {
		if err != nil {
			t.Log(err)
		}
	}
}

//go:build e2e

package installation

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// block is a fenced block of shell commands in a page. Its word says what to do with it: none that it is run, "refused" that its last
// command must fail, anything else is for the test of the page to say. What the page shows of its output is in the fenced block of text
// that follows: lines of it in their order, in which … stands for anything and spaces for any number of them.
type block struct {
	word, commands, output string
	line                   int
}

const fence = "```"

// blocks returns those of a page, or of its section under that heading, which is written as in the page: with its #s.
func blocks(t *testing.T, page, section string) []block {
	t.Helper()
	content, err := os.ReadFile("../../docs/" + page)
	if err != nil {
		t.Fatal(err)
	}
	var all []block
	var into *string
	within, line := section == "", 0
	for text := range strings.Lines(string(content)) {
		line++
		opening, isFence := strings.CutPrefix(strings.TrimRight(text, "\n"), fence)
		language, word, _ := strings.Cut(opening, " ")
		switch {
		case isFence && opening == "":
			into = nil
		case isFence && language == "sh" && within:
			all = append(all, block{word: word, line: line})
			into = &all[len(all)-1].commands
		case isFence && language == "text" && within && len(all) > 0:
			into = &all[len(all)-1].output
		case isFence:
			into = new(string)
		case into != nil:
			*into += text
		case strings.TrimSpace(text) == section:
			within = true
		case within && section != "" && level(text) > 0 && level(text) <= level(section):
			within = false
		}
	}
	if len(all) == 0 {
		t.Fatalf("%s has no commands under the heading %q", page, section)
	}
	return all
}

// level is that of a heading, 0 of what is none.
func level(line string) int {
	rest := strings.TrimLeft(line, "#")
	if !strings.HasPrefix(rest, " ") {
		return 0
	}
	return len(line) - len(rest)
}

// shell runs blocks where a reader would: in their order, in one shell, in the checkout, with the plugin on the path. Before them it
// runs what the reader has done before. It fails the test where a command fails, and where a block says something else than its page.
func shell(t *testing.T, before string, all []block) {
	t.Helper()
	said := t.TempDir()
	script := "set -eu -o pipefail\n" + before
	for i, b := range all {
		out := fmt.Sprintf(" >%s/%d 2>&1", said, i)
		switch b.word {
		case "":
			script += "{ " + b.commands + "}" + out + "\n"
		case "refused":
			script += "if { " + b.commands + "}" + out + "; then echo 'line " + fmt.Sprint(b.line) + ": this was to be refused'; exit 1; fi\n"
		default:
			t.Fatalf("line %d: commands are marked %q: want nothing or refused", b.line, b.word)
		}
	}
	runScript(t, script, said)
	for i, b := range all {
		out, err := os.ReadFile(filepath.Join(said, fmt.Sprint(i)))
		if err != nil {
			t.Error(err)
		}
		t.Logf("line %d:\n%s\n%s", b.line, b.commands, out)
		expectOutput(t, b, string(out))
	}
}

func expectOutput(t *testing.T, b block, out string) {
	t.Helper()
	got := strings.Split(out, "\n")
	for want := range strings.Lines(b.output) {
		if strings.TrimSpace(want) == "" || strings.TrimSpace(want) == "…" {
			continue
		}
		pattern := regexp.QuoteMeta(strings.Join(strings.Fields(want), " "))
		line := regexp.MustCompile("^" + strings.ReplaceAll(pattern, "…", ".*") + "$")
		for len(got) > 0 && !line.MatchString(strings.Join(strings.Fields(got[0]), " ")) {
			got = got[1:]
		}
		if len(got) == 0 {
			t.Errorf("line %d: the page shows a line that did not come, or came earlier:\n%s\nwhat came is\n%s", b.line, want, out)
			return
		}
		got = got[1:]
	}
}

func runScript(t *testing.T, script, said string) {
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
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "PATH="+path+":"+os.Getenv("PATH"), "BASH_XTRACEFD=9")
	// What runs in the background goes with the shell.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	kill := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel = kill
	cmd.WaitDelay = 10 * time.Second
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{6: log} // descriptor 9
	err = cmd.Run()
	_ = kill()
	if err != nil {
		trace, _ := os.ReadFile(log.Name())
		last := ""
		files, _ := filepath.Glob(filepath.Join(said, "*"))
		for _, file := range files { // that of the last one says what went wrong
			content, _ := os.ReadFile(file)
			last += fmt.Sprintf("-- block %s:\n%s", filepath.Base(file), content)
		}
		t.Fatalf("%v:\n%s\nwhat they said:\n%s", err, trace, last)
	}
}

//go:build e2e

package e2e

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestIsolation: an agent sees the other processes of its Pod and reaches none of them.
func TestIsolation(t *testing.T) {
	t.Parallel()
	l := bear(t, "isolation")
	var processes map[string]string
	if err := json.Unmarshal([]byte(l.must("GET", "processes")), &processes); err != nil {
		t.Fatal(err)
	}
	sidecar := ""
	for pid, name := range processes {
		if name == "program" {
			sidecar = pid
		}
	}
	if sidecar == "" || processes["1"] != "pause" {
		t.Fatalf("the Pod does not share its processes: %v", processes)
	}
	token := "/proc/" + sidecar + "/root/var/run/secrets/kubernetes.io/serviceaccount/token"
	if got, err := l.call("GET", "read", "path", token); err == nil || strings.Contains(got, "eyJ") {
		t.Errorf("the agent reads the sidecar's token: %v", got)
	}
	if got, err := l.call("GET", "read", "path", "/proc/"+sidecar+"/environ"); err == nil {
		t.Errorf("the agent reads the sidecar's environment: %v", got)
	}
	for _, pid := range []string{sidecar, "1"} {
		if got := l.must("POST", "kill", "pid", pid, "signal", "9"); !strings.Contains(got, "operation not permitted") {
			t.Errorf("kill -9 %s (%s): %s", pid, processes[pid], got)
		}
	}
	if c := l.status("lifecycle-sidecar"); c.RestartCount != 0 {
		t.Errorf("the sidecar was started again: %+v", c)
	}
}

package integration

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
)

// TestDebug sends what kubectl debug sends, by its profiles and by the file in docs/operations.md.
func TestDebug(t *testing.T) {
	t.Parallel()
	c := install(t, controlplane.Options{ControllerManager: true})
	c.create(t, agent("alice"))
	pod := c.podOf(t, "alice")
	page, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```json debug.json\n")
	custom, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("docs/operations.md has no debug.json")
	}
	restricted := &corev1.SecurityContext{ // kubectl's profile of the name
		RunAsNonRoot: ptr(true), AllowPrivilegeEscalation: ptr(false),
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	general := &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"SYS_PTRACE"}}}
	t.Run("general", func(t *testing.T) { // refused by the namespace's own label before any rule is asked
		err := c.debug(t, pod, "general", "ghcr.io/dexorder/debug:v1", general, custom)
		if err == nil || !strings.Contains(err.Error(), `violates PodSecurity "restricted`) || !strings.Contains(err.Error(), "SYS_PTRACE") {
			t.Errorf("want a refusal by Pod Security, got: %v", err)
		}
	})
	for _, tc := range []struct {
		name, image string
		security    *corev1.SecurityContext
		custom      string
		denied      map[string]string // by rule; none: it is admitted
	}{
		{"restricted-and-custom", "ghcr.io/dexorder/debug:v1", restricted, custom, nil},
		{"restricted", "ghcr.io/dexorder/debug:v1", restricted, "", map[string]string{
			"read-only-rootfs": ".securityContext.readOnlyRootFilesystem", "reserved-uids": ".securityContext.runAsUser",
		}},
		{"foreign-image", "docker.io/library/busybox", restricted, custom, map[string]string{"image-allowlist": "docker.io/library/busybox"}},
		{"sidecar-user", "ghcr.io/dexorder/debug:v1", restricted, strings.Replace(custom, "1000", "64042", 1), map[string]string{"reserved-uids": "is the sidecar's"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := c.debug(t, pod, tc.name, tc.image, tc.security, tc.custom)
			for rule, says := range tc.denied {
				denied(t, err, rule)
				if err != nil && !strings.Contains(err.Error(), says) {
					t.Errorf("want %q, got: %v", says, err)
				}
			}
			if tc.denied == nil && err != nil {
				t.Errorf("was refused: %v", err)
			}
		})
	}
}

// debug adds a debug container to a Pod as kubectl debug does: by a patch of the Pod's subresource.
func (c *cluster) debug(t *testing.T, pod *corev1.Pod, name, image string, security *corev1.SecurityContext, custom string) error {
	t.Helper()
	must := func(data []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	container := must(json.Marshal(corev1.EphemeralContainer{
		EphemeralContainerCommon: corev1.EphemeralContainerCommon{
			Name: name, Image: image, Command: []string{"sh"}, Stdin: true, TTY: true, SecurityContext: security,
			TerminationMessagePolicy: corev1.TerminationMessageReadFile,
		},
		TargetContainerName: "agent",
	}))
	if custom != "" {
		container = must(strategicpatch.StrategicMergePatch(container, []byte(custom), corev1.Container{}))
	}
	clients, err := kubernetes.NewForConfig(c.plane.Config)
	if err != nil {
		t.Fatal(err)
	}
	patch := `{"spec":{"ephemeralContainers":[` + string(container) + `]}}`
	_, err = clients.CoreV1().Pods(pod.Namespace).Patch(t.Context(), pod.Name, types.StrategicMergePatchType, []byte(patch),
		metav1.PatchOptions{}, "ephemeralcontainers")
	return err
}

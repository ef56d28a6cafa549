//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/manifests"
)

// mesh puts a container before those of each Pod with the label e2e: mesh, and one behind them, after the server has
// seen the Deployment.
var mesh = `
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: e2e-mesh}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  reinvocationPolicy: Never
  mutations:
  - patchType: JSONPatch
    jsonPatch:
      expression: >
        [JSONPatch{op: "add", path: "/spec/containers/0", value: ` + meshContainer("mesh-proxy") + `},
         JSONPatch{op: "add", path: "/spec/containers/-", value: ` + meshContainer("mesh-logger") + `}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: e2e-mesh}
spec:
  policyName: e2e-mesh
  matchResources: {objectSelector: {matchLabels: {e2e: mesh}}}
`

func meshContainer(name string) string {
	return `Object.spec.containers{name: "` + name + `", image: "` + agentImage + `", command: ["/bin/e2e-agent", "stand"],
          resources: Object.spec.containers.resources{limits: {"cpu": "100m", "memory": "64Mi"}, requests: {"cpu": "1m", "memory": "16Mi"}},
          securityContext: Object.spec.containers.securityContext{runAsUser: 2102, runAsNonRoot: true, allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true, capabilities: Object.spec.containers.securityContext.capabilities{drop: ["ALL"]},
            seccompProfile: Object.spec.containers.securityContext.seccompProfile{type: "RuntimeDefault"}}}`
}

// An agent whose container is not called "agent" goes when it is idle, whatever other injectors put beside it in its
// Pod.
func TestMeshBesideAgent(t *testing.T) {
	objects, err := manifests.Decode([]byte(mesh))
	if err != nil {
		t.Fatal(err)
	}
	applier, err := manifests.NewApplier(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, api := context.WithoutCancel(t.Context()), client.AdmissionregistrationV1()
		_ = api.MutatingAdmissionPolicyBindings().Delete(ctx, "e2e-mesh", metav1.DeleteOptions{})
		_ = api.MutatingAdmissionPolicies().Delete(ctx, "e2e-mesh", metav1.DeleteOptions{})
	})
	if _, err := applier.Apply(t.Context(), objects); err != nil {
		t.Fatal(err)
	}
	meshed := func(d *appsv1.Deployment) {
		d.Spec.Template.Labels["e2e"] = "mesh"
		d.Spec.Template.Spec.Containers[0].Name = "web"
	}
	// The API server takes up a new admission policy after a moment.
	eventually(t, clusterTimeout, meshedPod)

	l := bear(t, "mesh-idle", meshed)
	names := []string{}
	for i := range l.pod.Spec.Containers {
		names = append(names, l.pod.Spec.Containers[i].Name)
	}
	if names[0] != "mesh-proxy" || !slices.Contains(names, "mesh-logger") || !slices.Contains(names, "web") {
		t.Fatalf("the Pod's containers are %q; the mesh has not put its own beside the agent's", names)
	}
	l.leave42()
	l.expectGone()
}

// meshedPod is nil when the API server puts the mesh's containers beside others.
func meshedPod(ctx context.Context) error {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "e2e-mesh", Labels: map[string]string{"e2e": "mesh"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: agentImage}}},
	}
	made, err := client.CoreV1().Pods(metav1.NamespaceDefault).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		return err
	}
	if n := len(made.Spec.Containers); n != 3 {
		return fmt.Errorf("a Pod has %d containers, want 3", n)
	}
	return nil
}

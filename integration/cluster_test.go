package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/internal/installation"
)

const agents = installation.AgentsNamespace

// program is the server's binary, built once.
var program string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "agent-lifecycle-integration-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		log.SetLogger(logr.Discard())
		program = filepath.Join(dir, "lifecycle-webhook")
		// As make builds it, so that Go's build cache serves both.
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "../cmd/lifecycle-webhook")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building the server: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// cluster is a control plane with the installation on it.
type cluster struct {
	*installation.Installation
	plane *controlplane.ControlPlane
}

// install starts a control plane and one server.
func install(t *testing.T, opts controlplane.Options) *cluster { return installWith(t, opts) }

// installWith gives the server further flags.
func installWith(t *testing.T, opts controlplane.Options, flags ...string) *cluster {
	t.Helper()
	return installPolicy(t, opts, "../policy/v1alpha1/example.yaml", flags...)
}

// installPolicy gives the server another policy, too.
func installPolicy(t *testing.T, opts controlplane.Options, policy string, flags ...string) *cluster {
	t.Helper()
	plane := controlplane.StartForTest(t, opts)
	in, err := installation.New(t.Context(), plane, installation.Options{
		Program: program, Manifests: "../manifests/base", Policy: policy,
		Flags: append([]string{"--drain-delay", "100ms"}, flags...),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := in.Close(); err != nil {
			t.Errorf("closing the installation: %v", err)
		}
	})
	if _, err := in.AddServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &cluster{Installation: in, plane: plane}
}

// as returns a client that acts as a service account of kube-system.
func (c *cluster) as(t *testing.T, account string) client.Client {
	t.Helper()
	user, err := client.New(c.plane.Impersonate(controlplane.ServiceAccount(metav1.NamespaceSystem, account)), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return user
}

// agent is what a user writes, changed.
func agent(name string, changes ...func(*appsv1.Deployment)) *appsv1.Deployment {
	quantities := corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("128Mi")}
	labels := map[string]string{"app": name}
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: agents, Name: name},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{
					Name: "agent", Image: "ghcr.io/dexorder/agent:v1",
					Resources: corev1.ResourceRequirements{Limits: quantities, Requests: quantities},
				}}},
			},
		},
	}
	for _, change := range changes {
		change(d)
	}
	return d
}

// pod changes an agent's Pod template.
func pod(change func(*corev1.PodSpec)) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) { change(&d.Spec.Template.Spec) }
}

func (c *cluster) create(t *testing.T, o client.Object) {
	t.Helper()
	if err := c.Client.Create(t.Context(), o); err != nil {
		t.Fatalf("create %s: %v%s", o.GetName(), err, c.Logs())
	}
}

func (c *cluster) get(t *testing.T, o client.Object) {
	t.Helper()
	if err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
		t.Fatal(err)
	}
}

// podOf waits for the Pod that the controllers make of an agent's current template.
func (c *cluster) podOf(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	d := agent(name)
	var pods corev1.PodList
	eventually(t, "Pod of "+name, func() (bool, error) {
		if err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(d), d); err != nil {
			return false, err
		}
		err := c.Client.List(t.Context(), &pods, client.InNamespace(agents), client.MatchingLabels{"app": name})
		return len(pods.Items) == 1 && d.Status.ObservedGeneration == d.Generation && d.Status.UpdatedReplicas == 1 &&
			pods.Items[0].DeletionTimestamp == nil, err
	})
	return &pods.Items[0]
}

// denied fails the test unless err is a denial by the rule.
func denied(t *testing.T, err error, rule string) {
	t.Helper()
	switch {
	case err == nil:
		t.Errorf("was admitted, want a denial by %s", rule)
	case !strings.Contains(err.Error(), "denied the request: refused by policy") || !strings.Contains(err.Error(), "\n- "+rule+": "):
		t.Errorf("want a denial by %s, got: %v", rule, err)
	}
}

func eventually(t *testing.T, what string, condition func() (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		ok, err := condition()
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("no %s within a minute; last error: %v", what, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func ptr[T any](v T) *T { return &v }

package controlplane_test

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
)

// TestControlPlane starts one control plane and asks it for everything that the package promises.
func TestControlPlane(t *testing.T) {
	auditLog := filepath.Join(t.TempDir(), "audit.log")
	cp := controlplane.StartForTest(t, controlplane.Options{
		ControllerManager: true,
		AuditLog:          auditLog,
		APIServerFlags:    map[string][]string{"enable-admission-plugins": {"AlwaysPullImages"}},
	})
	ctx := t.Context()
	admin := clientFor(t, cp.Config)

	version, err := admin.Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(version.GitVersion, "v1.36.") {
		t.Errorf("the API server says version %q, want v1.36", version.GitVersion)
	}

	// As a service account, so that the request can be told from others in the audit log.
	deployer := controlplane.ServiceAccount("default", "deployer")
	_, err = clientFor(t, cp.Impersonate(deployer)).AppsV1().Deployments("default").
		Create(ctx, deployment("agent"), metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) {
		t.Fatalf("a service account without any role creates a Deployment: got error %v, want forbidden by RBAC", err)
	}
	if _, err := admin.AppsV1().Deployments("default").Create(ctx, deployment("agent"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}

	pod := awaitPod(t, admin, "app=agent")
	if owner := metav1.GetControllerOf(&pod); owner == nil || owner.Kind != "ReplicaSet" {
		t.Errorf("the Pod's controller is %v, want a ReplicaSet", owner)
	}
	if got := pod.Spec.ServiceAccountName; got != "default" {
		t.Errorf("the Pod's service account is %q, want default, set by the ServiceAccount admission plugin", got)
	}
	if got := pod.Spec.Containers[0].ImagePullPolicy; got != corev1.PullAlways {
		t.Errorf("the Pod's imagePullPolicy is %q, want Always, set by the plugin that APIServerFlags enable", got)
	}
	if creators := podCreators(t, auditLog); !slices.Contains(creators, "system:serviceaccount:kube-system:replicaset-controller") {
		t.Errorf("the audit log says that Pods were created by %q, want the replicaset-controller's service account", creators)
	}

	token, err := admin.CoreV1().ServiceAccounts("default").
		CreateToken(ctx, "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(cp.Config)
	config.BearerToken = token.Status.Token
	self, err := clientFor(t, config).AuthenticationV1().SelfSubjectReviews().
		Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := self.Status.UserInfo.Username, "system:serviceaccount:default:default"; got != want {
		t.Errorf("a requested token belongs to %q, want %q", got, want)
	}

	out, err := exec.CommandContext(ctx, cp.Kubectl(), "--kubeconfig", cp.Kubeconfig(), "auth", "whoami", "-o", "name").CombinedOutput()
	if err != nil {
		t.Errorf("kubectl with the kubeconfig: %v\n%s", err, out)
	}
}

// A control plane that cannot start says why and leaves nothing behind.
func TestStartReportsAPIServerLog(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	_, err := controlplane.Start(t.Context(), controlplane.Options{
		APIServerFlags: map[string][]string{"authorization-mode": {"Nonsense"}},
	})
	if err == nil || !strings.Contains(err.Error(), "Nonsense") {
		t.Errorf("got error %v, want the API server's own words about Nonsense", err)
	}
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "agent-lifecycle-controlplane-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

func clientFor(t *testing.T, config *rest.Config) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func deployment(name string) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "agent", Image: "agent:1"}}},
			},
		},
	}
}

func awaitPod(t *testing.T, client kubernetes.Interface, selector string) corev1.Pod {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for {
		pods, err := client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			t.Fatalf("waiting for a Pod with %s: %v", selector, err)
		}
		if len(pods.Items) > 0 {
			return pods.Items[0]
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// podCreators are the users who, by the audit log, created Pods.
func podCreators(t *testing.T, auditLog string) []string {
	t.Helper()
	f, err := os.Open(auditLog)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var users []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var event struct {
			Verb      string
			User      authenticationv1.UserInfo
			ObjectRef struct{ Resource string }
		}
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			t.Fatalf("audit log: %v in %s", err, lines.Text())
		}
		if event.Verb == "create" && event.ObjectRef.Resource == "pods" {
			users = append(users, event.User.Username)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return users
}

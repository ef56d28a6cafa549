//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// No agent's environment names another agent: the kubelet tells a container what Services there are when it starts it,
// so each agent is started again once all are there. One Service has an address, as a gateway of v0.1.0 made them.
func neighboursAreNotTold(t *testing.T, f *frontend, id string) {
	const users = 3
	all := make([]*user, users)
	for i := range all {
		all[i] = newUser(t, f, fmt.Sprintf("%d-%s", i, id))
		all[i].want(http.StatusCreated, http.MethodPut, "", `{"userType": "enterprise"}`)
		s, err := client.CoreV1().Services(agentsNamespace).Get(t.Context(), all[i].name, metav1.GetOptions{})
		if err != nil || s.Spec.ClusterIP != corev1.ClusterIPNone {
			t.Errorf("the Service of %s is %+v, %v, want a headless one", all[i].id, s, err)
		}
	}
	addressed := serviceWithAddress(t, "agent-of-before-"+strings.ReplaceAll(id, "@example.com", ""))
	names := []string{addressed.Name}
	for _, u := range all {
		names = append(names, u.name)
	}
	for _, u := range all {
		u.startAgain()
		read := u.want(http.StatusOK, http.MethodGet, "/connect/read?path=/proc/self/environ", "")
		environment := strings.Split(read.body, "\x00")
		if !hasVariable(environment, "KUBERNETES_SERVICE_HOST") { // which every container is told
			t.Fatalf("the environment of %s was not read: %q", u.id, environment)
		}
		for _, variable := range environment {
			for _, name := range names {
				if name != u.name && tells(variable, name) {
					t.Errorf("the environment of %s tells of %s: %s", u.id, name, variable)
				}
			}
			if strings.Contains(variable, addressed.Spec.ClusterIP) {
				t.Errorf("the environment of %s tells of an address: %s", u.id, variable)
			}
		}
	}
}

func hasVariable(environment []string, name string) bool {
	for _, variable := range environment {
		if strings.HasPrefix(variable, name+"=") {
			return true
		}
	}
	return false
}

// tells says whether a variable holds the name of an agent, as it is or as the kubelet writes it.
func tells(variable, name string) bool {
	return strings.Contains(variable, name) || strings.Contains(variable, strings.ToUpper(strings.ReplaceAll(name, "-", "_")))
}

// serviceWithAddress is a Service of no agent in the namespace of agents, for the length of the test.
func serviceWithAddress(t *testing.T, name string) *corev1.Service {
	t.Helper()
	services := client.CoreV1().Services(agentsNamespace)
	s, err := services.Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{lifecycle.LabelDeployment: name}, Ports: []corev1.ServicePort{{Name: "mcp", Port: 3000}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := services.Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	return s
}

// startAgain deletes the Pods of the user's agent, as a drain would, and returns when the gateway connects with a new
// one.
func (u *user) startAgain() {
	u.t.Helper()
	old, err := u.pods(u.t.Context())
	if err != nil || len(old) == 0 {
		u.t.Fatalf("%s has no Pod: %v", u.id, err)
	}
	for i := range old {
		if err := client.CoreV1().Pods(agentsNamespace).Delete(u.t.Context(), old[i].Name, metav1.DeleteOptions{}); err != nil {
			u.t.Fatal(err)
		}
	}
	eventually(u.t, lifeTimeout, func(ctx context.Context) error {
		e, err := u.echo(ctx, "again")
		if err != nil {
			return err
		}
		for i := range old {
			if e.Pod == old[i].Name {
				return fmt.Errorf("%s still has Pod %s", u.id, e.Pod)
			}
		}
		return nil
	})
}

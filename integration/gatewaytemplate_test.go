package integration

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/gateway"
)

// An agent that was made of a broken template takes the one of today with the next PUT or connection, and is admitted as any other.
func testBrokenTemplate(t *testing.T, c *cluster, n *node) {
	text, err := os.ReadFile(gatewayManifests + "agent.yaml")
	if err != nil {
		t.Fatal(err)
	}
	template, err := gateway.ParseTemplate([]byte(strings.Replace(string(text), "agent:v1.0.0", "agent:v0.0.0-broken", 1)))
	if err != nil {
		t.Fatal(err)
	}
	before := c.startGateway(t, n, func(o *gateway.Options) { o.Template = template })
	today, _, ahead := c.startPatchy(t, n, n.address)
	for _, user := range []string{"unlucky-put", "unlucky-connection"} {
		name := gateway.Name(user)
		n.set(func() { n.hold[name] = true })
		before.want(t, http.StatusCreated, http.MethodPut, user, "", "")
		eventually(t, "status of the Deployment", func() (bool, error) {
			d := c.parts(t, user).deployment
			return d.Status.ObservedGeneration == d.Generation && len(d.Status.Conditions) == 2, nil
		})
		today.want(t, http.StatusOK, http.MethodPut, user, "", "") // it may only be slow
		if d := c.parts(t, user).deployment; d.Generation != 1 {
			t.Errorf("an agent that only starts was changed: generation %d", d.Generation)
		}
	}
	ahead.Add(int64(time.Minute))
	today.want(t, http.StatusOK, http.MethodPut, "unlucky-put", "", "")
	for _, user := range []string{"unlucky-put", "unlucky-connection"} {
		name := gateway.Name(user)
		time.AfterFunc(3*time.Second, func() { n.set(func() { n.hold[name] = false }) })
		today.want(t, http.StatusOK, http.MethodGet, user, "/connect/", "")
		d := c.parts(t, user).deployment
		var images []string
		for _, container := range d.Spec.Template.Spec.Containers {
			images = append(images, container.Image)
		}
		if len(images) != 2 || !strings.HasSuffix(images[0], "agent:v1.0.0") {
			t.Errorf("%s: the template has the images %v", user, images)
		}
		_, pod := n.of(t, name)
		if pod == nil || pod.Spec.Containers[0].Image != d.Spec.Template.Spec.Containers[0].Image {
			t.Errorf("%s: the Pod is %+v", user, pod)
		}
		// From now on it has run, and no template restarts it.
		eventually(t, "agent that is available", func() (bool, error) {
			return c.parts(t, user).deployment.Status.AvailableReplicas == 1, nil
		})
		generation := c.parts(t, user).deployment.Generation
		_, pod = n.of(t, name)
		pod.Status.Conditions[0].Status = corev1.ConditionFalse
		if err := c.Client.Status().Update(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
		eventually(t, "agent that is not available", func() (bool, error) {
			return c.parts(t, user).deployment.Status.AvailableReplicas == 0, nil
		})
		before.want(t, http.StatusOK, http.MethodPut, user, "", "")
		if d := c.parts(t, user).deployment; d.Generation != generation {
			t.Errorf("%s: an agent that has been ready was changed", user)
		}
	}
}

package provision

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// The image goes to the container that admission takes for the agent's, and to no other.
func TestAgentImage(t *testing.T) {
	const image = "ghcr.io/dexorder/agent:v2"
	deployment := func(name, annotations, containers string) string {
		return `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ` + name + `, namespace: agent-x}
spec: {template: {metadata: {annotations: {` + annotations + `}}, spec: {containers: [` + containers + `]}}}
`
	}
	const named = "lifecycle.dexorder.io/agent-container: worker"
	for name, tc := range map[string]struct {
		deployments string
		want        string // Deployment/container of each that runs the image
		err         string
	}{
		"called agent":        {deployment("a", "", "{name: log, image: l}, {name: agent, image: i}"), "a/agent", ""},
		"the only one":        {deployment("a", "", "{name: worker, image: i}"), "a/worker", ""},
		"beside the sidecar":  {deployment("a", "", "{name: lifecycle-sidecar, image: s}, {name: worker, image: i}"), "a/worker", ""},
		"named by annotation": {deployment("a", named, "{name: log, image: l}, {name: worker, image: i}"), "a/worker", ""},
		"annotation first":    {deployment("a", named, "{name: agent, image: l}, {name: worker, image: i}"), "a/worker", ""},
		"beside a helper":     {deployment("a", "", "{name: agent, image: i}") + deployment("redis", "", "{name: redis, image: r}"), "a/agent", ""},
		"two agents":          {deployment("a", "", "{name: agent, image: i}") + deployment("b", named, "{name: worker, image: i}"), "a/agent b/worker", ""},
		"two Deployments":     {deployment("a", "", "{name: worker, image: i}") + deployment("redis", "", "{name: redis, image: r}"), "", "which of Deployment a, Deployment redis runs the agent?"},
		"two containers":      {deployment("a", "", "{name: log, image: l}, {name: worker, image: i}"), "", `which of the containers "log", "worker" runs the agent?`},
		"named and missing":   {deployment("a", named, "{name: agent, image: l}"), "", `names "worker", but the containers are "agent"`},
		"no Deployment":       {"", "", "no Deployment would run it"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Render(Role{Name: "x", Dir: kustomization(t, ownNamespace+tc.deployments), Image: image})
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) || !strings.HasPrefix(err.Error(), "image "+image+": ") {
					t.Errorf("%v, want %s", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, o := range r.Objects {
				containers, _, _ := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
				for _, c := range containers {
					if fields := c.(map[string]any); fields["image"] == image {
						got = append(got, o.GetName()+"/"+fields["name"].(string))
					}
				}
			}
			if s := strings.Join(got, " "); s != tc.want {
				t.Errorf("%s run it, want %s", s, tc.want)
			}
		})
	}
}

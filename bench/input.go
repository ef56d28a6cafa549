// Package bench measures what admission costs, side by side with what one would use instead of this project: in
// process, with the bytes that an API server sends (the benchmarks of this package), and on a real API server, as the
// time that a client waits (command creates). README.md says what is compared and how to read it; `make bench` runs all.
package bench

import (
	_ "embed"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"
)

// Review is an AdmissionReview as kube-apiserver v1.36 sent it to a mutating webhook, byte by byte, for the CREATE of
// what Deployment returns.
//
//go:embed testdata/review.json
var Review []byte

// recordedName is the name of the agent in testdata.
const recordedName = "agent-user-7f3a9c"

//go:embed testdata/deployment.yaml
var deployment string

// Deployment is an agent of the given name as its owner would write it: everything that follows from the name, such as
// its claim, follows.
func Deployment(name string) (*appsv1.Deployment, error) {
	d := &appsv1.Deployment{}
	if err := yaml.UnmarshalStrict([]byte(strings.ReplaceAll(deployment, recordedName, name)), d); err != nil {
		return nil, fmt.Errorf("testdata/deployment.yaml: %w", err)
	}
	return d, nil
}

// Policy is a policy file whose only profile covers one namespace. All rules are in it, enforced with their defaults.
func Policy(namespace string) []byte {
	return fmt.Appendf(nil, `apiVersion: lifecycle.dexorder.io/v1alpha1
kind: LifecyclePolicy
sidecar:
  image: ghcr.io/dexorder/lifecycle-sidecar:v0.1.0
profiles:
- name: user-agents
  namespaces:
    names: [%s]
  serviceAccount:
    name: agent-lifecycle
    mountToken: false
  rules:
    image-allowlist:
      images: [ghcr.io/dexorder/*]
`, namespace)
}

package provision

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	content, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	o := &unstructured.Unstructured{}
	if err := o.UnmarshalJSON(content); err != nil {
		t.Fatal(err)
	}
	return o
}

// What is stopped remembers what it was, and only what was running is stopped.
func TestStopAndStart(t *testing.T) {
	const remembers = `{metadata: {name: x, annotations: {lifecycle.dexorder.io/replicas-before: "2"}}, `
	for _, tc := range []struct{ kind, fields, stop, start string }{
		{"Deployment", `{metadata: {name: x}, spec: {replicas: 1}}`, "to be scaled from 1 to 0", ""},
		{"Deployment", `{metadata: {name: x}, spec: {}}`, "to be scaled from 1 to 0", ""},
		{"StatefulSet", `{metadata: {name: x}, spec: {replicas: 3}}`, "to be scaled from 3 to 0", ""},
		{"Deployment", `{metadata: {name: x}, spec: {replicas: 0}}`, "has no replicas already", ""},
		{"Deployment", remembers + `spec: {replicas: 0}}`, "has no replicas already", "to be scaled to 2"},
		{"Deployment", remembers + `spec: {replicas: 1}}`, "to be scaled from 1 to 0", "has 1 replicas already"},
		{"Deployment", `{metadata: {name: x, annotations: {lifecycle.dexorder.io/replicas-before: many}}, spec: {replicas: 0}}`, "has no replicas already", ""},
		{"CronJob", `{metadata: {name: x}, spec: {}}`, "to be suspended", ""},
		{"CronJob", `{metadata: {name: x}, spec: {suspend: true}}`, "is suspended already", ""},
		{"CronJob", remembers + `spec: {suspend: true}}`, "is suspended already", "to be resumed"},
	} {
		o := object(t, tc.fields[:1]+"apiVersion: v1, kind: "+tc.kind+", "+tc.fields[1:])
		w, err := stopping(o)
		if err != nil || w.Outcome != tc.stop {
			t.Errorf("%s %s: %q, %v, want %q", tc.kind, tc.fields, w.Outcome, err, tc.stop)
		}
		s, is := starting(o)
		if is != (tc.start != "") || s.Outcome != tc.start {
			t.Errorf("%s %s: started: %q, want %q", tc.kind, tc.fields, s.Outcome, tc.start)
		}
	}
	w, _ := stopping(object(t, `{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: x}, spec: {replicas: 3}}`))
	if patch, _ := json.Marshal(w.patch); string(patch) != `{"metadata":{"annotations":{"lifecycle.dexorder.io/replicas-before":"3"}},"spec":{"replicas":0}}` {
		t.Errorf("%s", patch)
	}
}

// Deprovisioning deletes nothing, also not by what Kubernetes does when a StatefulSet has fewer replicas.
func TestStopRefusesToLoseClaims(t *testing.T) {
	const set = `{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: x}, spec: {replicas: %s, persistentVolumeClaimRetentionPolicy: {whenScaled: %s, whenDeleted: Delete}}}`
	_, err := stopping(object(t, fmt.Sprintf(set, "1", "Delete")))
	const want = `spec.persistentVolumeClaimRetentionPolicy.whenScaled is "Delete": Kubernetes would delete its claims when it is scaled to 0; accepted is Retain`
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v", err)
	}
	for _, harmless := range []string{fmt.Sprintf(set, "0", "Delete"), fmt.Sprintf(set, "1", "Retain")} {
		if _, err := stopping(object(t, harmless)); err != nil {
			t.Errorf("%s: %v", harmless, err)
		}
	}
}

func TestUnwantedRefusesWhatIsProtected(t *testing.T) {
	const key = "do-not-reap"
	for name, tc := range map[string]struct {
		labels, annotations map[string]string
		want                string // of the refusal; empty: it may go
	}{
		"nothing":              {nil, nil, ""},
		"an annotation":        {nil, map[string]string{key: "true"}, "its annotation do-not-reap is \"true\"; if it may go, run: kubectl annotate namespace agent-x do-not-reap-"},
		"a label":              {map[string]string{key: "yes"}, nil, "its label do-not-reap is \"yes\"; if it may go, run: kubectl label namespace agent-x do-not-reap-"},
		"not any more":         {map[string]string{key: "false"}, map[string]string{key: "false"}, ""},
		"for a while, as said": {nil, map[string]string{key + "-until": "2026-01-01T00:00:00Z"}, ""},
	} {
		_, _, err := unwanted(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "agent-x", Labels: tc.labels, Annotations: tc.annotations}}, "now me")
		if tc.want == "" && err != nil || tc.want != "" && (!errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

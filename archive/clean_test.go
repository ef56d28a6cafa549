package archive

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	data, err := yaml.YAMLToJSON([]byte(text))
	if err == nil {
		err = o.UnmarshalJSON(data)
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestClean(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"what the server set": {
			`{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: n, uid: u, resourceVersion: "1", generation: 2,
			  creationTimestamp: "2026-01-01T00:00:00Z", managedFields: [{manager: m}], finalizers: [f],
			  ownerReferences: [{apiVersion: v1, kind: Pod, name: p, uid: gone}]}, data: {k: v}}`,
			`{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: n}, data: {k: v}}`,
		},
		"a reaper's marks on a namespace": {
			`{apiVersion: v1, kind: Namespace, metadata: {name: agent-a, labels: {kubernetes.io/metadata.name: agent-a, org: o}, annotations: {
			  last-pod-activity: x, lifecycle.dexorder.io/reaping: x, lifecycle.dexorder.io/sightings: "2", lifecycle.dexorder.io/idle-since: x,
			  lifecycle.dexorder.io/restored-from: x, lifecycle.dexorder.io/unhealthy: x, do-not-reap: "false"}}, spec: {finalizers: [kubernetes]}, status: {phase: Active}}`,
			`{apiVersion: v1, kind: Namespace, metadata: {name: agent-a, labels: {org: o}, annotations: {do-not-reap: "false"}}}`,
		},
		"the stamp of a Pod that is gone": {
			`{apiVersion: v1, kind: ConfigMap, metadata: {name: a, labels: {lifecycle.dexorder.io/created-by-pod-uid: u}, annotations: {lifecycle.dexorder.io/created-by-pod: p}}}`,
			`{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}`,
		},
		"a Service's address": {
			`{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ipFamilies: [IPv4]}}`,
			`{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ipFamilies: [IPv4]}}`,
		},
		"no address on purpose": {
			`{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: None, clusterIPs: [None]}}`,
			`{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: None, clusterIPs: [None]}}`,
		},
		"a claim's volume": {
			`{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: a, finalizers: [kubernetes.io/pvc-protection], annotations: {
			  pv.kubernetes.io/bind-completed: "yes", volume.kubernetes.io/selected-node: n}}, spec: {volumeName: v, storageClassName: s}, status: {phase: Bound}}`,
			`{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: a}, spec: {storageClassName: s}}`,
		},
		"an account's tokens": {
			`{apiVersion: v1, kind: ServiceAccount, metadata: {name: a}, secrets: [{name: a-token}], imagePullSecrets: [{name: r}]}`,
			`{apiVersion: v1, kind: ServiceAccount, metadata: {name: a}, imagePullSecrets: [{name: r}]}`,
		},
		"a Job's UID": {
			`{apiVersion: batch/v1, kind: Job, metadata: {name: a}, spec: {suspend: true, selector: {matchLabels: {batch.kubernetes.io/controller-uid: u}},
			  template: {metadata: {labels: {batch.kubernetes.io/controller-uid: u, app: a}}}}}`,
			`{apiVersion: batch/v1, kind: Job, metadata: {name: a}, spec: {suspend: true, template: {metadata: {labels: {app: a}}}}}`,
		},
		"nothing of a workload's": {
			`{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, annotations: {deployment.kubernetes.io/revision: "3", note: x}}, spec: {replicas: 0}, status: {replicas: 0}}`,
			`{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, annotations: {note: x}}, spec: {replicas: 0}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := object(t, tc.in)
			before := in.DeepCopy()
			if diff := cmp.Diff(object(t, tc.want).Object, clean(in).Object); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if diff := cmp.Diff(before.Object, in.Object); diff != "" {
				t.Errorf("what was given was changed\n%s", diff)
			}
		})
	}
}

func TestWithoutValues(t *testing.T) {
	s := object(t, `{apiVersion: v1, kind: Secret, metadata: {name: a, annotations: {note: x,
	  kubectl.kubernetes.io/last-applied-configuration: '{"stringData":{"token":"hunter2"}}'}}, type: Opaque, data: {token: aHVudGVyMg==, other: eA==}}`)
	keys := withoutValues(s)
	if diff := cmp.Diff([]string{"other", "token"}, keys); diff != "" {
		t.Error(diff)
	}
	text, err := json.Marshal(s)
	if err != nil || strings.Contains(string(text), "hunter2") || strings.Contains(string(text), "aHVudGVyMg") || !strings.Contains(string(text), "note") {
		t.Errorf("%s, %v", text, err)
	}
}

package archive

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWhyLeftOut(t *testing.T) {
	const account = "every namespace gets one by itself; what was added to this one is not kept"
	for text, want := range map[string]string{
		`{apiVersion: v1, kind: Secret, metadata: {name: kube-root-ca.crt}}`:                                                            "",
		`{apiVersion: v1, kind: ServiceAccount, metadata: {name: default}, imagePullSecrets: [{name: mirror}]}`:                         account,
		`{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, annotations: {role: a}}}`:                                     account,
		`{apiVersion: v1, kind: ServiceAccount, metadata: {name: ceo}}`:                                                                 "",
		`{apiVersion: v1, kind: Secret, metadata: {name: a}, type: kubernetes.io/service-account-token}`:                                "it is the token of a ServiceAccount that will have another UID",
		`{apiVersion: v1, kind: Secret, metadata: {name: a}, type: Opaque}`:                                                             "",
		`{apiVersion: batch/v1, kind: Job, metadata: {name: a}, status: {conditions: [{type: Complete, status: "True"}]}}`:              "it has finished, and would run once more",
		`{apiVersion: batch/v1, kind: Job, metadata: {name: a}, status: {conditions: [{type: Failed, status: "True"}]}}`:                "it has finished, and would run once more",
		`{apiVersion: batch/v1, kind: Job, metadata: {name: a}, status: {conditions: [{type: Suspended, status: "True"}]}}`:             "",
		`{apiVersion: batch/v1, kind: Job, metadata: {name: a, ownerReferences: [{kind: CronJob, name: c, uid: u, controller: true}]}}`: "CronJob c controls it",
		`{apiVersion: v1, kind: Secret, metadata: {name: a, ownerReferences: [{kind: Cluster, name: pg, uid: u, controller: true}]}}`:   "Cluster pg controls it",
		`{apiVersion: v1, kind: Service, metadata: {name: a, ownerReferences: [{kind: Deployment, name: c, uid: u}]}}`:                  "",
		`{apiVersion: v1, kind: ConfigMap, metadata: {name: a, deletionTimestamp: "2026-01-01T00:00:00Z"}}`:                             "it was being deleted",

		// Claims stay, whatever controls them.
		`{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: a, finalizers: [kubernetes.io/pvc-protection]}, status: {phase: Pending}}`: "",
		`{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: a, ownerReferences: [{kind: StatefulSet, name: s, uid: u, controller: true}]},
		  spec: {volumeName: v}, status: {phase: Bound}}`: "",
		`{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: a, ownerReferences: [{kind: Cluster, name: pg, uid: u, controller: true}]},
		  status: {phase: Pending}}`: "",
		`{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: a, deletionTimestamp: "2026-01-01T00:00:00Z"}, spec: {volumeName: v}, status: {phase: Bound}}`: "",
		`{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: a, deletionTimestamp: "2026-01-01T00:00:00Z"}, status: {phase: Pending}}`:                      "it was being deleted",
	} {
		if got := whyLeftOut(object(t, text)); got != want {
			t.Errorf("got %q, want %q: %s", got, want, text)
		}
	}
}

func TestMadeAnew(t *testing.T) {
	for text, want := range map[string]bool{
		`{apiVersion: v1, kind: ConfigMap, metadata: {name: kube-root-ca.crt}}`: true,
		`{apiVersion: v1, kind: Secret, metadata: {name: kube-root-ca.crt}}`:    false,
		`{apiVersion: v1, kind: ServiceAccount, metadata: {name: default}}`:     true,
		`{apiVersion: v1, kind: ServiceAccount, metadata: {name: ceo}}`:         false,

		// The list tells the operator that what was added is gone.
		`{apiVersion: v1, kind: ServiceAccount, metadata: {name: default}, imagePullSecrets: [{name: mirror}]}`:         false,
		`{apiVersion: v1, kind: ServiceAccount, metadata: {name: default}, automountServiceAccountToken: false}`:        false,
		`{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, annotations: {eks.amazonaws.com/role: arn}}}`: false,
	} {
		if got := madeAnew(object(t, text)); got != want {
			t.Errorf("got %t, want %t: %s", got, want, text)
		}
	}
}

func TestLogged(t *testing.T) {
	var all []LeftOut
	for i := range maxLogged + 2 {
		all = append(all, LeftOut{Kind: "Cluster.example.com", Name: fmt.Sprint(i), Reason: "why"})
	}
	got := logged(all)
	if len(got) != maxLogged+1 || got[0] != "Cluster.example.com 0: why" || got[maxLogged] != "and 2 more" {
		t.Errorf("%d lines, %q to %q", len(got), got[0], got[len(got)-1])
	}
	if diff := cmp.Diff([]string{"Widget.example.com: why"}, logged([]LeftOut{{Kind: "Widget.example.com", Reason: "why"}})); diff != "" {
		t.Error(diff)
	}
}

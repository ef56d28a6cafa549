package workload

import (
	"encoding/json"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ReplicasWriter is a field manager that set spec.replicas of a workload to what it is.
type ReplicasWriter struct {
	// Manager is its name, such as kube-controller-manager.
	Manager string

	// Subresource is "scale" where it wrote by way of that, else empty.
	Subresource string

	// Time is when it last changed a field that it owns; zero where that is not recorded.
	Time time.Time
}

// ReplicasWriters returns the field managers that own spec.replicas, in the order of the entries. What cannot be read
// owns nothing.
func ReplicasWriters(entries []metav1.ManagedFieldsEntry) []ReplicasWriter {
	var writers []ReplicasWriter
	for i := range entries {
		if e := &entries[i]; ownsReplicas(e) {
			w := ReplicasWriter{Manager: e.Manager, Subresource: e.Subresource}
			if e.Time != nil {
				w.Time = e.Time.Time
			}
			writers = append(writers, w)
		}
	}
	return writers
}

// IdentifyingManagers returns entries with nothing but what ReplicasWriters looks at, for those who keep many objects.
func IdentifyingManagers(entries []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
	var kept []metav1.ManagedFieldsEntry
	for i := range entries {
		if e := &entries[i]; ownsReplicas(e) {
			kept = append(kept, metav1.ManagedFieldsEntry{
				Manager: e.Manager, Subresource: e.Subresource, Time: e.Time,
				FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:replicas":{}}}`),
			})
		}
	}
	return kept
}

func ownsReplicas(e *metav1.ManagedFieldsEntry) bool {
	if e.FieldsV1 == nil {
		return false
	}
	var fields struct {
		Spec struct {
			Replicas json.RawMessage `json:"f:replicas"`
		} `json:"f:spec"`
	}
	return json.Unmarshal(e.FieldsV1.GetRawBytes(), &fields) == nil && fields.Spec.Replicas != nil
}

// replicasSince is when spec.replicas was set to what it is, at the latest; zero where nobody knows.
func replicasSince(entries []metav1.ManagedFieldsEntry) time.Time {
	var at time.Time
	for _, w := range ReplicasWriters(entries) {
		if w.Time.After(at) {
			at = w.Time
		}
	}
	return at.UTC()
}

package reaper

import (
	"encoding/json"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// lastWrite is when an object was last changed by a client other than the reaper, as the API server noted it; zero if
// it says nothing. After the Pod that made the object has gone, each change is by a client that still needs it.
//
// Of an object that was created without any content, or whose entries were taken out, the API server notes no later
// writes either, except by apply: it says nothing, and may be written to all the time.
func lastWrite(entries []metav1.ManagedFieldsEntry) time.Time {
	var last time.Time
	for i := range entries {
		if e := &entries[i]; e.Time != nil && !isOrphanNote(e) {
			last = latest(last, e.Time.Time)
		}
	}
	return last
}

// isOrphanNote says that a manager wrote AnnotationOrphanedSince and nothing else, as reapers of every version do.
// Their name does not tell: it is the program's.
func isOrphanNote(e *metav1.ManagedFieldsEntry) bool {
	if e.FieldsV1 == nil {
		return false
	}
	annotations, is := onlyField([]byte(e.FieldsV1.GetRawString()), "f:metadata")
	if !is {
		return false
	}
	if annotations, is = onlyField(annotations, "f:annotations"); !is {
		return false
	}
	_, is = onlyField(annotations, "f:"+lifecycle.AnnotationOrphanedSince)
	return is
}

// onlyField returns the value of a field, if a set of fields holds that one and, besides itself, no other.
func onlyField(set []byte, name string) (json.RawMessage, bool) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(set, &fields) != nil {
		return nil, false
	}
	delete(fields, ".")
	value, has := fields[name]
	return value, has && len(fields) == 1
}

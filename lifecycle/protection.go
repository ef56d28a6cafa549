package lifecycle

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ProtectionMark is a label or an annotation by which somebody protects an object: AnnotationDoNotReap or
// AnnotationDoNotReapUntil.
type ProtectionMark struct {
	Key   string `json:"key"`
	Value string `json:"value"`

	// Label says that the mark is a label. Else it is an annotation.
	Label bool `json:"label,omitempty"`
}

// ProtectionMarks returns the marks among an object's labels and annotations. It returns nil for nearly every object.
func ProtectionMarks(labels, annotations map[string]string) []ProtectionMark {
	var marks []ProtectionMark
	for _, key := range []string{AnnotationDoNotReap, AnnotationDoNotReapUntil} {
		if value, has := annotations[key]; has {
			marks = append(marks, ProtectionMark{Key: key, Value: value})
		}
		if value, has := labels[key]; has {
			marks = append(marks, ProtectionMark{Key: key, Value: value, Label: true})
		}
	}
	return marks
}

// Protection returns why an object with these marks may not be deleted at the given time, for people. It is empty if no mark
// protects the object. Every mark protects by itself, and a value that cannot be read protects.
func Protection(marks []ProtectionMark, now time.Time) string {
	for _, m := range marks {
		if reason := m.protects(now); reason != "" {
			return reason
		}
	}
	return ""
}

// ProtectionOf is Protection for an object as the API server describes it.
func ProtectionOf(o metav1.Object, now time.Time) string {
	return Protection(ProtectionMarks(o.GetLabels(), o.GetAnnotations()), now)
}

// String names the mark: annotations by their key, as most marks are some.
func (m ProtectionMark) String() string {
	if m.Label {
		return "label " + m.Key
	}
	return m.Key
}

func (m ProtectionMark) protects(now time.Time) string {
	if m.Key == AnnotationDoNotReap {
		if m.Value == "false" {
			return ""
		}
		return fmt.Sprintf("%s is %q", m, m.Value)
	}
	until, err := time.Parse(time.RFC3339, m.Value)
	switch {
	case err != nil:
		return fmt.Sprintf("%s is %q, which is no time such as 2026-01-02T15:04:05Z", m, m.Value)
	case until.After(now):
		return fmt.Sprintf("%s is %s", m, m.Value)
	}
	return ""
}

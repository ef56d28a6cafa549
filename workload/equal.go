package workload

import (
	"reflect"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
)

// Equal says whether two API values mean the same: an absent list equals an empty one, and 1Gi equals 1024Mi.
//
// The plain comparison comes first because it takes a fraction of the time, and what is compared is mostly the same to
// the letter.
func Equal[T any](a, b *T) bool {
	return reflect.DeepEqual(a, b) || apiequality.Semantic.DeepEqual(a, b)
}

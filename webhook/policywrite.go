package webhook

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// policyPath is what the registration asks about a policy of rules revision 2. Servers of release v0.1.0 would refuse such a
// policy on /policy, for a field that they do not know; here they answer 404, and failurePolicy Ignore lets the policy pass
// to the servers that know it. A revision that adds fields to the policy file adds a path.
const policyPath = "/policy/2"

// policyField is where the policy file is in its ConfigMap.
var policyField = field.NewPath("data").Key(lifecycle.PolicyKey)

// ofPolicy says whether the request is about the ConfigMap of the policy. In which namespace that is, is left to the
// registration.
func (t *task) ofPolicy() bool { return t.Name == lifecycle.PolicyConfigMap }

// reviewPolicy answers whether a server could load the policy that is written. It knows of one file only what is in it:
// whether the registrations fit is found by those that load it.
func (a *Admission) reviewPolicy(ctx context.Context, t *task) answer {
	data, err := decodeData(t.Object)
	if err != nil {
		return fault(faultUndecodable, err)
	}
	file, has := data[lifecycle.PolicyKey]
	if !has {
		return unloadable(field.Required(policyField, noPolicy(data)))
	}
	release, err := a.policyReviews.acquire(ctx)
	if err != nil {
		return fault(faultDeadline, errors.New("other policies are being read"))
	}
	defer release()
	if _, err := compile([]byte(file)); err != nil {
		return unloadable(err)
	}
	return answer{allowed: true, verdict: verdictAllow}
}

// decodeData reads what a ConfigMap holds as text.
func decodeData(object jsontext.Value) (map[string]string, error) {
	var o struct {
		Data map[string]string `json:"data"`
	}
	if !present(object) {
		return nil, errors.New("there is no object")
	}
	if err := json.Unmarshal(object, &o); err != nil {
		return nil, fmt.Errorf("object: %w", err)
	}
	return o.Data, nil
}

// noPolicy says what belongs where nothing is, and what there is in its stead.
func noPolicy(data map[string]string) string {
	want := fmt.Sprintf("the policy file goes here, a %s of %s", v1alpha1.Kind, v1alpha1.APIVersion)
	if len(data) == 0 {
		return want
	}
	keys := make([]string, 0, len(data))
	for _, key := range slices.Sorted(maps.Keys(data)) {
		keys = append(keys, fmt.Sprintf("%q", key))
	}
	return bounded(want+"; there is "+strings.Join(keys, ", "), maxComplaint)
}

// unloadable refuses a policy file, by all that is wrong with it. With 422 and causes kubectl edit opens the file again
// and shows them.
func unloadable(err error) answer {
	a := answer{verdict: verdictDeny}
	a.status = failure(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid,
		"refused, since no server could load this policy:\n- "+bounded(strings.ReplaceAll(err.Error(), "\n", "\n- "), maxUnloadable))
	a.status.Details = &statusDetails{Name: lifecycle.PolicyConfigMap, Kind: "ConfigMap", Causes: mistakes(err)}
	return a
}

// maxMistakes bounds the causes of one refusal, maxUnloadable its message in bytes.
const (
	maxMistakes   = 50
	maxUnloadable = 32 << 10
)

// mistakes are what is wrong with a policy file: a cause for each field, or one for the whole.
func mistakes(err error) []cause {
	whole := cause{Type: string(field.ErrorTypeInvalid), Message: bounded(err.Error(), maxComplaint), Field: policyField.String()}
	list := []error{err}
	if several := interface{ Unwrap() []error }(nil); errors.As(err, &several) {
		list = several.Unwrap()
	}
	var causes []cause
	for i, one := range list {
		if i == maxMistakes {
			whole.Message = fmt.Sprintf("and %d more", len(list)-maxMistakes)
			return append(causes, whole)
		}
		e := (*field.Error)(nil)
		if !errors.As(one, &e) {
			return []cause{whole}
		}
		causes = append(causes, cause{Type: string(e.Type), Message: bounded(e.ErrorBody(), maxComplaint), Field: e.Field})
	}
	return causes
}

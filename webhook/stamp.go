package webhook

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/inject"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// ofRoleAgent says whether the request is about a namespace in which the reaper looks for leftovers. That is a matter of
// its name, and of no policy: a stamp that is not taken off today would count tomorrow.
func (t *task) ofRoleAgent() bool {
	return strings.HasPrefix(t.Namespace, lifecycle.RoleNamespacePrefix)
}

// stamp answers with what makes an object say which agent's Pod creates it.
func (a *Admission) stamp(_ context.Context, t *task) answer {
	o, err := decodeMetadata(t.Object)
	if err != nil {
		return passed(faultUndecodable, err)
	}
	return patched(inject.Stamp(t.Namespace, o, &t.UserInfo), nil)
}

// unstamped lets an object pass that there is no room to look at.
func unstamped() answer { return passed(faultOverload, errOverload) }

// unstampedTooMuch lets an object pass that is more than is decoded.
func unstampedTooMuch(err error) answer { return passed(faultTooMuch, err) }

// decodeMetadata reads labels and annotations of an object and passes over everything else: Secrets are among those that
// are stamped. An error holds no value of the object, since it is logged.
func decodeMetadata(object jsontext.Value) (*metav1.ObjectMeta, error) {
	var o struct {
		Metadata *struct {
			Labels      map[string]string `json:"labels"`
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
	}
	if !present(object) {
		return nil, errors.New("CREATE without an object")
	}
	if err := json.Unmarshal(object, &o); err != nil {
		where := "object"
		if semantic := new(json.SemanticError); errors.As(err, &semantic) {
			where += string(semantic.JSONPointer)
		}
		return nil, fmt.Errorf("%s cannot be read; metadata.labels and metadata.annotations should be objects of strings", where)
	}
	if o.Metadata == nil {
		return nil, errors.New("object has no metadata")
	}
	return &metav1.ObjectMeta{Labels: o.Metadata.Labels, Annotations: o.Metadata.Annotations}, nil
}

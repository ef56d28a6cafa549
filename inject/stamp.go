package inject

import (
	"strings"

	"gomodules.xyz/jsonpatch/v2"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// Stamp makes an object that is being created say which Pod of its namespace creates it: that one's UID in a label, its
// name in an annotation. On what anybody else creates there is no stamp, whoever wrote it there: a copy of what an agent
// made belongs to whoever made the copy.
//
// A Pod of another namespace counts as anybody else. An operator that makes a Secret for an agent is still there when its
// own Pod is replaced, and who looks for that Pod beside the Secret would not find it.
func Stamp(namespace string, o *metav1.ObjectMeta, user *authenticationv1.UserInfo) []jsonpatch.Operation {
	e := &editor{}
	name, uid := creatingPod(namespace, user)
	e.stampKey(&o.Labels, "/metadata/labels", lifecycle.LabelCreatedByPodUID, uid)
	e.stampKey(&o.Annotations, "/metadata/annotations", lifecycle.AnnotationCreatedByPod, name)
	return e.patch
}

// creatingPod returns the Pod of a namespace whose token the user has; empty if there is none, or it cannot be told. A UID
// that is no label's value counts as that: the object would be refused for it.
func creatingPod(namespace string, user *authenticationv1.UserInfo) (name, uid string) {
	names, uids := user.Extra[lifecycle.ExtraPodName], user.Extra[lifecycle.ExtraPodUID]
	switch {
	case !strings.HasPrefix(user.Username, "system:serviceaccount:"+namespace+":"):
		return "", ""
	case len(names) != 1 || len(uids) != 1 || names[0] == "" || uids[0] == "":
		return "", ""
	case len(validation.IsValidLabelValue(uids[0])) > 0:
		return "", ""
	}
	return names[0], uids[0]
}

// stampKey gives a key the value that it ought to have; none if that is empty.
func (e *editor) stampKey(m *map[string]string, path, key, value string) {
	was, found := (*m)[key]
	switch {
	case value == "" && found:
		e.removeKey(*m, path, key)
	case value != "" && was != value:
		e.setKey(m, path, key, value)
	}
}

package reaper

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// notOurs says why a namespace is none of the reaper's, or "" if it is one. It takes a label and the name: a label alone can be put
// on kube-system, and a name alone can be somebody else's. own is the system's own namespace.
func notOurs(n *namespace, orgs map[string]bool, own string) string {
	switch {
	case !strings.HasPrefix(n.name, lifecycle.RoleNamespacePrefix) || n.name == lifecycle.RoleNamespacePrefix:
		return "its name does not start with " + lifecycle.RoleNamespacePrefix
	case n.name == own, n.name == metav1.NamespaceDefault, strings.HasPrefix(n.name, "kube-"):
		return "it is the system's own"
	case n.labels[lifecycle.LabelAgentRole] == "":
		return "it has no label " + lifecycle.LabelAgentRole
	case !orgs[n.labels[lifecycle.LabelOrg]]:
		return fmt.Sprintf("its label %s is %q, which is none of the policy's", lifecycle.LabelOrg, n.labels[lifecycle.LabelOrg])
	}
	return ""
}

// lastActivity reads AnnotationLastPodActivity. What is absent, cannot be read, lies in the future or before the namespace's own
// creation says nothing: then ok is false.
func lastActivity(n *namespace, now time.Time) (at time.Time, ok bool) {
	value := n.annotations[lifecycle.AnnotationLastPodActivity]
	at, err := time.Parse(time.RFC3339, value)
	if err != nil {
		seconds, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return time.Time{}, false
		}
		at = time.Unix(seconds, 0)
	}
	return at, !at.After(now) && !at.Before(n.created)
}

// instant reads an annotation that the reaper wrote. Like lastActivity, what makes no sense says nothing.
func instant(n *namespace, key string, now time.Time) (at time.Time, ok bool) {
	at, err := time.Parse(time.RFC3339, n.annotations[key])
	return at, err == nil && !at.After(now) && !at.Before(n.created)
}

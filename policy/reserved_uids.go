package policy

import (
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// Processes of one Pod share a PID namespace, so who may signal whom, and who may look into whose /proc/PID/root, is a
// matter of user IDs. The sidecar's is its own, or its token could be read; that of the Pod's pause process is
// nobody's, or an agent could end its own sandbox. pause runs as the Pod's runAsUser where that is set; in an agent's
// Deployment that is moved to the containers that it is for.
var reservedUIDs = Rule{
	ID:          "reserved-uids",
	Summary:     "no container shares a user ID with the sidecar or the pause process",
	enforcement: func(r *v1alpha1.Rules) v1alpha1.Enforcement { return r.ReservedUIDs.Enforcement },
	applies:     podsChange,
	check:       checkReservedUIDs,
}

func checkReservedUIDs(_ *Profile, r *Request) []Violation {
	t := r.Object.Template
	var pod *int64
	if t.Spec.SecurityContext != nil {
		pod = t.Spec.SecurityContext.RunAsUser
	}
	var found []Violation
	if pod != nil && *pod == lifecycle.SidecarUID {
		found = append(found, violation(t.Field("spec.securityContext.runAsUser"),
			"%d is the sidecar's; leave it out and set runAsUser on containers", *pod))
	}
	shared := t.Spec.ShareProcessNamespace != nil && *t.Spec.ShareProcessNamespace
	for _, c := range t.Containers() {
		if full(found) {
			return found
		}
		if isSidecar(r, c) {
			continue
		}
		field := func() string { return c.Path() + ".securityContext.runAsUser" }
		uid := pod
		if c.SecurityContext != nil && c.SecurityContext.RunAsUser != nil {
			uid = c.SecurityContext.RunAsUser
		}
		switch {
		case uid == nil:
			if shared {
				found = append(found, violation(field(),
					"container %q: is not set, and its image's user may be the sidecar's; set one, such as %d",
					c.Name, lifecycle.AgentUID))
			}
		case *uid == lifecycle.SidecarUID:
			found = append(found, violation(field(), "container %q: %d is the sidecar's; use another, such as %d",
				c.Name, *uid, lifecycle.AgentUID))
		case *uid == lifecycle.PauseUID:
			found = append(found, violation(field(), "container %q: %d is the pause process's; use another, such as %d",
				c.Name, *uid, lifecycle.AgentUID))
		case shared && pod != nil && *uid == *pod:
			found = append(found, violation(t.Field("spec.securityContext.runAsUser"),
				"%d would be the user of container %q and of the pause process, which the container could then end; "+
					"set runAsUser on containers instead", *pod, c.Name))
		}
	}
	return found
}

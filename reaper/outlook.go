package reaper

import (
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// idleness is how long nothing has run in a namespace, by what the reaper has noted there.
type idleness struct {
	// since is from when on it counts. noted says that the reaper has written it down, and has not begun anew since.
	since time.Time
	noted bool

	// marked says that the namespace is marked for deletion, sightings how many passes in a row have found it ready to be.
	marked    bool
	sightings int
}

// idlenessOf is that of a namespace in which nothing runs and nothing wants to. active is its last activity.
func idlenessOf(n *namespace, active, now time.Time) idleness {
	since, noted := instant(n, lifecycle.AnnotationIdleSince, now)
	markedAt, marked := instant(n, lifecycle.AnnotationReaping, now)
	if undone(n, markedAt, marked) {
		noted, marked = false, false
	}
	if !noted {
		since = now
	}
	sightings, err := strconv.Atoi(n.annotations[lifecycle.AnnotationSightings])
	if err != nil || sightings < 0 {
		sightings = 0
	}
	return idleness{since: latest(since, active), noted: noted, marked: marked, sightings: sightings}
}

// ripeAt is when the namespace has been idle for long enough.
func (i *idleness) ripeAt(policy *v1alpha1.Reaper) time.Time {
	return i.since.Add(policy.Namespaces.IdleAfter.Duration)
}

// deletedAt is when it is deleted at the earliest, if it stays idle: passes in a row have to see it so, the last of
// them marks it, and the next one deletes it. The first may be made at once.
func (i *idleness) deletedAt(policy *v1alpha1.Reaper, now time.Time) time.Time {
	if !i.ripeAt(policy).After(now) {
		passes := 1
		if !i.marked {
			passes += max(1, int(policy.Sightings)-i.sightings)
		}
		return now.Add(time.Duration(passes-1) * policy.Interval.Duration)
	}
	return i.ripeAt(policy).Add(time.Duration(max(1, int(policy.Sightings))) * policy.Interval.Duration)
}

// DeletedAt is when the reaper deletes a role agent's namespace at the earliest, if nothing runs there and nothing
// wants to from now on. idle says that this is so already: then what the reaper has noted counts. It asks neither
// whether the namespace is the reaper's nor what protects it.
func DeletedAt(o *corev1.Namespace, policy *v1alpha1.Reaper, idle bool, now time.Time) time.Time {
	n := namespaceOf(o)
	active, known := lastActivity(n, now)
	if !known {
		active = now
	}
	i := idleness{since: now}
	if idle {
		i = idlenessOf(n, active, now)
	}
	return i.deletedAt(policy, now)
}

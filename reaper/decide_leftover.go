package reaper

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// leftover is an object that an agent's Pod made, by the stamp that the webhook put on it.
type leftover struct {
	object
	kind                string
	labels, annotations map[string]string

	// madeBy is the UID of the Pod that made it.
	madeBy types.UID

	// owned says that it has owner references, so that it is the garbage collector's.
	owned bool

	// written is when a client other than the reaper last changed it; zero if that cannot be told.
	written time.Time

	// finished is when a Job finished; zero for a Job that works, and for what is none.
	finished time.Time
}

// surroundings are what a decision on a leftover has to know of its namespace.
type surroundings struct {
	// pods are the UIDs of the Pods that are there.
	pods map[types.UID]bool

	// makers are the workloads that are there, also those that want no Pod.
	makers makers

	// references are kind/name of what Pods, workloads and service accounts refer to, annotated the names in their
	// annotations.
	references, annotated map[string]bool

	// mentions are what everything else mentions; nil until it has been read, which is done where something would go
	// without it.
	mentions *mentions
}

// refersTo says whether something refers to a leftover.
func (s *surroundings) refersTo(l *leftover) bool {
	return s.references[l.kind+"/"+l.name] || l.kind != "Job" && (s.annotated[l.name] || s.mentions.has(l.name))
}

// makes says whether a workload that is there may have made the Pod of that name.
func (s *surroundings) makes(pod string) bool {
	return s.makers.mayHaveMade(pod) || s.mentions != nil && pod != "" && s.mentions.makers.mayHaveMade(pod)
}

// decideLeftover says what becomes of an object that an agent made. Nothing that lacks the stamp ever gets here.
func decideLeftover(l *leftover, around *surroundings, policy *v1alpha1.LeftoverReaper, now time.Time) orphan {
	switch {
	case l.deleting:
		return orphan{reason: "it is being deleted", since: l.annotations[lifecycle.AnnotationOrphanedSince]}
	case l.madeBy == "":
		return orphan{reason: "its stamp is empty"}
	case lifecycle.Protection(l.protected, now) != "":
		return orphan{reason: "it is protected"}
	case l.owned:
		return orphan{reason: "it goes with its owner"}
	case l.kind == "Job" && l.finished.IsZero():
		return orphan{reason: "it works"}
	case around.refersTo(l):
		return orphan{reason: "something refers to it"}
	case l.kind != "Job" && around.mentions != nil && around.mentions.unknown != "":
		return orphan{
			reason: "what may refer to it cannot be read", since: l.annotations[lifecycle.AnnotationOrphanedSince], next: now.Add(leftoverRetry),
		}
	}
	expires, expiring, err := expiry(l.annotations)
	if err != nil {
		return orphan{reason: "it cannot be read when it expires"}
	}
	if expiring {
		if left := expires.Sub(now); left > 0 {
			return orphan{reason: "it has not expired", next: now.Add(left)}
		}
		return orphan{goes: true, reason: "expired at " + l.annotations[lifecycle.AnnotationExpiresAt]}
	}
	if l.kind == "Job" {
		if left := l.finished.Add(policy.FinishedJobs.Duration).Sub(now); left > 0 {
			return orphan{reason: "it has finished not long ago", next: now.Add(left)}
		}
		return orphan{goes: true, reason: "finished at " + l.finished.UTC().Format(time.RFC3339)}
	}
	pod := l.annotations[lifecycle.AnnotationCreatedByPod]
	switch {
	case around.pods[l.madeBy]:
		return orphan{reason: "the Pod that made it is there"}
	case around.makes(pod):
		return orphan{reason: "the workload that made it is there"}
	case releaseOf(l.name, l.labels, l.annotations) != "":
		return orphan{reason: "it records a release, or belongs to one"}
	case l.written.IsZero():
		return orphan{reason: "it cannot be told when it was last written"}
	}
	if left := l.written.Add(policy.After.Duration).Sub(now); left > 0 {
		return orphan{reason: "it was written not long ago", next: now.Add(left)}
	}
	// What was noted before the last write has to be seen again.
	return waitAsOrphan(l.annotations[lifecycle.AnnotationOrphanedSince], l.written, policy.After.Duration, now,
		"Pod "+pod+" that made it has gone with its workload, and nothing refers to it")
}

// expiry reads AnnotationExpiresAt.
func expiry(annotations map[string]string) (at time.Time, has bool, err error) {
	value, has := annotations[lifecycle.AnnotationExpiresAt]
	if has {
		at, err = time.Parse(time.RFC3339, value)
	}
	return at, has, err
}

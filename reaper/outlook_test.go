package reaper

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// What is promised of a namespace is what passes do to it, one every interval: it is deleted neither before that nor
// a pass later.
func TestDeletedAt(t *testing.T) {
	policy := &v1alpha1.Reaper{Sightings: 2, Interval: metav1.Duration{Duration: 5 * time.Minute}}
	policy.Namespaces.IdleAfter.Duration = time.Hour
	created := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now := created.Add(12 * time.Hour)
	ago := func(d time.Duration) string { return now.Add(-d).Format(time.RFC3339) }
	const since, active, reaping, sightings, phase = lifecycle.AnnotationIdleSince, lifecycle.AnnotationLastPodActivity, lifecycle.AnnotationReaping,
		lifecycle.AnnotationSightings, lifecycle.AnnotationPhase
	for name, tc := range map[string]struct {
		annotations map[string]string
		want        time.Duration
	}{
		"nothing noted":                     {nil, 70 * time.Minute},
		"idle for a while":                  {map[string]string{since: ago(50 * time.Minute), active: ago(50 * time.Minute)}, 20 * time.Minute},
		"active since":                      {map[string]string{since: ago(50 * time.Minute), active: ago(10 * time.Minute)}, 60 * time.Minute},
		"active since, in Unix seconds":     {map[string]string{since: ago(50 * time.Minute), active: "1767268200"}, 60 * time.Minute},
		"when it was active makes no sense": {map[string]string{since: ago(50 * time.Minute), active: "yesterday"}, 70 * time.Minute},
		"idle since the future":             {map[string]string{since: now.Add(time.Hour).Format(time.RFC3339), active: ago(time.Hour)}, 70 * time.Minute},
		"idle for long enough":              {map[string]string{since: ago(2 * time.Hour), active: ago(2 * time.Hour)}, 10 * time.Minute},
		"seen so once":                      {map[string]string{since: ago(2 * time.Hour), active: ago(2 * time.Hour), sightings: "1"}, 5 * time.Minute},
		"marked":                            {map[string]string{since: ago(2 * time.Hour), active: ago(2 * time.Hour), reaping: ago(time.Minute)}, 0},
		"its mark taken back":               {map[string]string{since: ago(2 * time.Hour), active: ago(2 * time.Hour), phase: ago(time.Minute) + " marked"}, 70 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			o := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "agent-x", CreationTimestamp: metav1.NewTime(created), Annotations: tc.annotations}}
			if got := DeletedAt(o, policy, true, now).Sub(now); got != tc.want {
				t.Errorf("in %s, want %s", got, tc.want)
			}
			n, at := namespaceOf(o), now
			for ; ; at = at.Add(policy.Interval.Duration) {
				v := decideNamespace(&facts{namespace: n}, policy, at)
				if v.phase == Dismantled {
					break
				}
				n = n.after(v.annotations)
			}
			if got := at.Sub(now); got != tc.want {
				t.Errorf("passes delete it after %s, and %s were promised", got, tc.want)
			}
		})
	}
	busy := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(created), Annotations: map[string]string{since: ago(2 * time.Hour)}}}
	if got := DeletedAt(busy, policy, false, now).Sub(now); got != 70*time.Minute {
		t.Errorf("what still runs is deleted in %s", got)
	}
}

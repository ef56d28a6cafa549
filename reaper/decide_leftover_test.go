package reaper

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

func TestDecideLeftover(t *testing.T) {
	const (
		now      = "2026-01-02T12:00:00Z"
		hourAgo  = "2026-01-02T11:00:00Z"
		lately   = "2026-01-02T11:00:01Z"
		tomorrow = "2026-01-03T12:00:00Z"
		expires  = lifecycle.AnnotationExpiresAt
		since    = lifecycle.AnnotationOrphanedSince
		madeBy   = lifecycle.AnnotationCreatedByPod
	)
	gone := func(since string) orphan {
		return orphan{goes: true, reason: "Pod worker-1 that made it has gone with its workload, and nothing refers to it; seen so since " + since, since: since}
	}
	note := func(key, value string) func(*leftover) { return func(l *leftover) { l.annotations[key] = value } }
	orphaned := note(since, hourAgo)
	written := func(before time.Duration) func(*leftover) {
		return func(l *leftover) { l.written = newYear.Add(-before) }
	}
	byLabel := func(l *leftover) {
		l.protected = newObject(&metav1.ObjectMeta{Labels: map[string]string{lifecycle.AnnotationDoNotReap: "yes"}}).protected
	}
	job := func(finished time.Time) func(*leftover) {
		return func(l *leftover) { l.kind, l.name, l.finished = "Job", "once", finished }
	}
	type changes []func(*leftover)
	for name, tc := range map[string]struct {
		changes changes
		want    orphan
	}{
		"first seen":              {nil, orphan{reason: "it has not been an orphan for long enough", since: now, next: newYear.Add(time.Hour)}},
		"seen long ago":           {changes{orphaned}, gone(hourAgo)},
		"seen lately":             {changes{note(since, lately)}, orphan{reason: "it has not been an orphan for long enough", since: lately, next: newYear.Add(time.Second)}},
		"seen at no time":         {changes{note(since, "x")}, orphan{reason: "it has not been an orphan for long enough", since: now, next: newYear.Add(time.Hour)}},
		"young":                   {changes{orphaned, written(59 * time.Minute)}, orphan{reason: "it was written not long ago", next: newYear.Add(time.Minute)}},
		"written all the time":    {changes{orphaned, written(3 * time.Second)}, orphan{reason: "it was written not long ago", next: newYear.Add(time.Hour - 3*time.Second)}},
		"written by a fast clock": {changes{orphaned, written(-time.Minute)}, orphan{reason: "it was written not long ago", next: newYear.Add(61 * time.Minute)}},
		"written for an hour not": {changes{orphaned, written(time.Hour)}, gone(hourAgo)},
		"written since it was seen": {
			changes{note(since, "2026-01-02T09:00:00Z"), written(2 * time.Hour)},
			orphan{reason: "it has not been an orphan for long enough", since: now, next: newYear.Add(time.Hour)},
		},
		"its Pod is there":         {changes{orphaned, func(l *leftover) { l.madeBy = "alive" }}, orphan{reason: "the Pod that made it is there"}},
		"written at no time":       {changes{orphaned, func(l *leftover) { l.written = time.Time{} }}, orphan{reason: "it cannot be told when it was last written"}},
		"its workload is there":    {changes{orphaned, note(madeBy, "ops-5d4f8c7b9-x2v9q")}, orphan{reason: "the workload that made it is there"}},
		"a release of Helm":        {changes{orphaned, func(l *leftover) { l.labels = map[string]string{"owner": "helm"} }}, orphan{reason: "it records a release, or belongs to one"}},
		"a release that expired":   {changes{note(expires, now), func(l *leftover) { l.labels = map[string]string{"owner": "helm"} }}, orphan{goes: true, reason: "expired at " + now}},
		"annotated":                {changes{orphaned, func(l *leftover) { l.name = "annotated" }}, orphan{reason: "something refers to it"}},
		"mentioned":                {changes{orphaned, func(l *leftover) { l.name = "mentioned" }}, orphan{reason: "something refers to it"}},
		"mentioned and expired":    {changes{note(expires, now), func(l *leftover) { l.name = "mentioned" }}, orphan{reason: "something refers to it"}},
		"of a custom object's Pod": {changes{orphaned, note(madeBy, "cluster-worker-0")}, orphan{reason: "the workload that made it is there"}},
		"made by nobody known":     {changes{orphaned, note(madeBy, "")}, orphan{reason: "the workload that made it is there"}},
		"used":                     {changes{orphaned, func(l *leftover) { l.name = "used" }}, orphan{reason: "something refers to it"}},
		"a ConfigMap of that name": {changes{orphaned, func(l *leftover) { l.kind, l.name = "ConfigMap", "used" }}, gone(hourAgo)},
		"owned":                    {changes{orphaned, func(l *leftover) { l.owned = true }}, orphan{reason: "it goes with its owner"}},
		"protected":                {changes{orphaned, note(lifecycle.AnnotationDoNotReap, "yes")}, orphan{reason: "it is protected"}},
		"protected by a label":     {changes{orphaned, byLabel}, orphan{reason: "it is protected"}},
		"stamp is empty":           {changes{orphaned, func(l *leftover) { l.madeBy = "" }}, orphan{reason: "its stamp is empty"}},
		"being deleted":            {changes{orphaned, func(l *leftover) { l.deleting = true }}, orphan{reason: "it is being deleted", since: hourAgo}},

		"expired":                    {changes{note(expires, now)}, orphan{goes: true, reason: "expired at " + now}},
		"expired, its Pod is there":  {changes{note(expires, hourAgo), func(l *leftover) { l.madeBy = "alive" }}, orphan{goes: true, reason: "expired at " + hourAgo}},
		"expired and young":          {changes{note(expires, now), written(0)}, orphan{goes: true, reason: "expired at " + now}},
		"expired and used":           {changes{note(expires, now), func(l *leftover) { l.name = "used" }}, orphan{reason: "something refers to it"}},
		"expired and protected":      {changes{note(expires, now), note(lifecycle.AnnotationDoNotReap, "true")}, orphan{reason: "it is protected"}},
		"not expired":                {changes{orphaned, note(expires, tomorrow)}, orphan{reason: "it has not expired", next: newYear.Add(24 * time.Hour)}},
		"expires at no time":         {changes{orphaned, note(expires, "soon")}, orphan{reason: "it cannot be read when it expires"}},
		"expires at no time, young":  {changes{note(expires, ""), written(0)}, orphan{reason: "it cannot be read when it expires"}},
		"expires by a clock of Unix": {changes{orphaned, note(expires, "1767355200")}, orphan{reason: "it cannot be read when it expires"}},

		"Job works":                  {changes{orphaned, job(time.Time{})}, orphan{reason: "it works"}},
		"Job works and has expired":  {changes{note(expires, now), job(time.Time{})}, orphan{reason: "it works"}},
		"Job finished":               {changes{job(newYear.Add(-time.Hour))}, orphan{goes: true, reason: "finished at " + hourAgo}},
		"Job finished, Pod there":    {changes{job(newYear.Add(-time.Hour)), func(l *leftover) { l.madeBy = "alive" }}, orphan{goes: true, reason: "finished at " + hourAgo}},
		"Job finished lately":        {changes{job(newYear.Add(-time.Minute))}, orphan{reason: "it has finished not long ago", next: newYear.Add(59 * time.Minute)}},
		"Job of a CronJob":           {changes{job(newYear.Add(-time.Hour)), func(l *leftover) { l.owned = true }}, orphan{reason: "it goes with its owner"}},
		"Job expires at no time":     {changes{job(newYear.Add(-time.Hour)), note(expires, "soon")}, orphan{reason: "it cannot be read when it expires"}},
		"Job finished, not expired":  {changes{job(newYear.Add(-time.Hour)), note(expires, tomorrow)}, orphan{reason: "it has not expired", next: newYear.Add(24 * time.Hour)}},
		"Job finished and protected": {changes{job(newYear.Add(-time.Hour)), note(lifecycle.AnnotationDoNotReapUntil, tomorrow)}, orphan{reason: "it is protected"}},
	} {
		l := &leftover{
			object: object{namespace: "agent-x", name: "token", created: newYear.Add(-24 * time.Hour)}, kind: "Secret", madeBy: "dead",
			written:     newYear.Add(-24 * time.Hour),
			annotations: map[string]string{lifecycle.AnnotationCreatedByPod: "worker-1"},
		}
		for _, change := range tc.changes {
			change(l)
		}
		l.protected = append(l.protected, lifecycle.ProtectionMarks(nil, l.annotations)...)
		around := &surroundings{pods: map[types.UID]bool{"alive": true}, makers: makers{"ops": true}, references: map[string]bool{"Secret/used": true},
			annotated: map[string]bool{"annotated": true, "once": true},
			mentions:  &mentions{names: map[string]bool{"mentioned": true, "once": true}, makers: makers{"cluster": true}},
		}
		if got := decideLeftover(l, around, &examplePolicy(t).Reaper.Leftovers, newYear); got != tc.want {
			t.Errorf("%s: %+v\nwant %+v", name, got, tc.want)
		}
	}
	unknown := &surroundings{mentions: &mentions{unknown: "list things.x.io: forbidden"}}
	l := &leftover{kind: "Secret", madeBy: "dead", written: newYear.Add(-24 * time.Hour), annotations: map[string]string{since: hourAgo}}
	want := orphan{reason: "what may refer to it cannot be read", since: hourAgo, next: newYear.Add(leftoverRetry)}
	if got := decideLeftover(l, unknown, &examplePolicy(t).Reaper.Leftovers, newYear); got != want {
		t.Errorf("unknown references: %+v\nwant %+v", got, want)
	}
}

package enforcement

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

var (
	noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

	oldRule   = Rule{Key{"agents", "volumes"}, 1}
	otherRule = Rule{Key{"agents", "replicas"}, 1}
	newRule   = Rule{Key{"agents", "service-links"}, 2}
	newerRule = Rule{Key{"agents", "later"}, 3}
)

func TestNext(t *testing.T) {
	var always time.Time
	settled, warned := noon.Add(settleTime), noon.Add(warnTime)
	early := noon.Add(-24 * time.Hour)
	times := func(pairs ...any) map[Key]time.Time {
		m := map[Key]time.Time{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i].(Rule).Key] = pairs[i+1].(time.Time)
		}
		return m
	}
	kept := Record{Revision: 2, Seen: noon.Add(-30 * time.Second), Since: times(oldRule, always, newRule, early)}
	with := func(r Record, change func(*Record)) Record {
		change(&r)
		return r
	}
	for _, tt := range []struct {
		name    string
		stored  Record
		s       Situation
		want    Record
		changed bool
	}{
		{
			"the first record after an upgrade", Record{}, Situation{Rules: []Rule{oldRule, newRule}},
			Record{Revision: 2, Seen: noon, Since: times(oldRule, always, newRule, settled), WarnAbove: 1, WarnUntil: warned}, true,
		},
		{
			"the first record of a new installation", Record{}, Situation{Rules: []Rule{oldRule, newRule}, Fresh: true},
			Record{Revision: 2, Seen: noon, Since: times(oldRule, always, newRule, noon)}, true,
		},
		{
			"the first record where the new rule is audited", Record{}, Situation{Rules: []Rule{oldRule}},
			Record{Revision: 2, Seen: noon, Since: times(oldRule, always), WarnAbove: 1, WarnUntil: warned}, true,
		},
		{"nothing has changed", kept, Situation{Rules: []Rule{oldRule, newRule}}, kept, false},
		{
			"heartbeat", with(kept, func(r *Record) { r.Seen = noon.Add(-heartbeatInterval) }), Situation{Rules: []Rule{oldRule, newRule}},
			with(kept, func(r *Record) { r.Seen = noon }), true,
		},
		{
			"a heartbeat of a clock that is ahead", with(kept, func(r *Record) { r.Seen = noon.Add(time.Hour) }),
			Situation{Rules: []Rule{oldRule, newRule}}, with(kept, func(r *Record) { r.Seen = noon }), true,
		},
		{
			"a rule comes to be enforced, and its templates are judged at once", kept, Situation{Rules: []Rule{oldRule, otherRule, newRule}},
			Record{Revision: 2, Seen: noon, Since: times(oldRule, always, otherRule, settled, newRule, early)}, true,
		},
		{
			"a rule is no longer enforced", kept, Situation{Rules: []Rule{oldRule}},
			Record{Revision: 2, Seen: noon, Since: times(oldRule, always)}, true,
		},
		{
			"a new profile", kept, Situation{Rules: []Rule{oldRule, newRule, {Key{"others", "volumes"}, 1}}},
			Record{
				Revision: 2, Seen: noon,
				Since: times(oldRule, always, newRule, early, Rule{Key{"others", "volumes"}, 1}, settled),
			}, true,
		},
		{
			"enforcement was interrupted", with(kept, func(r *Record) { r.Seen = noon.Add(-interruption - time.Second) }),
			Situation{Rules: []Rule{oldRule, newRule}},
			Record{Revision: 2, Seen: noon, Since: times(oldRule, always, newRule, settled), WarnAbove: 1, WarnUntil: warned}, true,
		},
		{
			"an upgrade from a version that kept a record", kept, Situation{Rules: []Rule{oldRule, newRule, newerRule}, Revision: 3},
			Record{
				Revision: 3, Seen: noon, Since: times(oldRule, always, newRule, early, newerRule, settled),
				WarnAbove: 2, WarnUntil: warned,
			}, true,
		},
		{
			"a newer server keeps the record", with(kept, func(r *Record) { r.Revision = 3 }), Situation{Rules: []Rule{oldRule}},
			with(kept, func(r *Record) { r.Revision = 3 }), false,
		},
		{
			"a newer server kept the record until a rollback",
			with(kept, func(r *Record) { r.Revision, r.Seen = 3, noon.Add(-time.Hour) }), Situation{Rules: []Rule{oldRule, newRule}},
			Record{Revision: 2, Seen: noon, Since: times(oldRule, always, newRule, settled), WarnAbove: 1, WarnUntil: warned}, true,
		},
		{
			"older servers still answer",
			Record{
				Revision: 2, Seen: noon.Add(-time.Second), WarnAbove: 1, WarnUntil: noon.Add(time.Minute),
				Since: times(oldRule, always, newRule, noon.Add(2*time.Minute)),
			},
			Situation{Rules: []Rule{oldRule, newRule}, RollingOut: true},
			Record{Revision: 2, Seen: noon, Since: times(oldRule, always, newRule, settled), WarnAbove: 1, WarnUntil: warned}, true,
		},
		{
			"older servers are gone, and the time they were given passes",
			Record{
				Revision: 2, Seen: noon.Add(-time.Second), WarnAbove: 1, WarnUntil: noon.Add(time.Minute),
				Since: times(oldRule, always, newRule, noon.Add(2*time.Minute)),
			},
			Situation{Rules: []Rule{oldRule, newRule}},
			Record{
				Revision: 2, Seen: noon.Add(-time.Second), WarnAbove: 1, WarnUntil: noon.Add(time.Minute),
				Since: times(oldRule, always, newRule, noon.Add(2*time.Minute)),
			}, false,
		},
		{
			"the time of older servers has passed, and a later rollout is none of one",
			Record{
				Revision: 2, Seen: noon.Add(-time.Second), WarnAbove: 1, WarnUntil: noon,
				Since: times(oldRule, always, newRule, noon.Add(time.Minute)),
			},
			Situation{Rules: []Rule{oldRule, newRule}, RollingOut: true},
			Record{Revision: 2, Seen: noon, Since: times(oldRule, always, newRule, noon.Add(time.Minute))}, true,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.s.Now = noon
			if tt.s.Revision == 0 {
				tt.s.Revision = 2
			}
			got, changed := Next(tt.stored, tt.s)
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateEmpty()); diff != "" || changed != tt.changed {
				t.Errorf("changed is %v, want %v; -want +got:\n%s", changed, tt.changed, diff)
			}
			if !changed {
				return
			}
			// Whoever comes next, at the same time, agrees.
			tt.s.RollingOut = false
			if again, changed := Next(got, tt.s); changed {
				t.Errorf("the next one changes it again (-got +again):\n%s", cmp.Diff(got, again))
			}
		})
	}
}

// Whatever was let pass because rules only warned is older than the rule, so that its Pods come back.
func TestWarnedIsOlderThanTheRule(t *testing.T) {
	r, _ := Next(Record{}, Situation{Now: noon, Rules: []Rule{oldRule, newRule}, Revision: 2})
	last := r.WarnUntil.Add(-time.Nanosecond)
	if times := r.Times("agents", last); !times["service-links"].WarnOnly {
		t.Fatalf("at the end of the time of older servers: %+v", times)
	}
	created := metav1.NewTime(last.Add(30 * time.Second)) // by a clock that is ahead
	if since := r.Times("agents", last)["service-links"].Since; !created.Before(&since) {
		t.Errorf("what is let pass at %s counts as younger than the rule, of %s", created, since)
	}
	if times := r.Times("agents", r.WarnUntil); times["service-links"].WarnOnly {
		t.Errorf("after it: %+v", times)
	}
}

func TestTimes(t *testing.T) {
	since := metav1.NewTime(noon)
	r := Record{Revision: 2, Since: map[Key]time.Time{oldRule.Key: {}, newRule.Key: noon}}
	got := r.Times("agents", noon)
	if got["service-links"] != (policy.RuleTime{Since: since}) {
		t.Errorf("service-links: %+v", got["service-links"])
	}
	if _, has := got["volumes"]; has {
		t.Error("volumes has always been in force, and has a time")
	}
	if replicas, has := got["replicas"]; !has || !replicas.Since.IsZero() {
		t.Errorf("replicas is not in the record: %+v", replicas)
	}
	none := (&Record{}).Times("agents", noon)
	if _, has := none["volumes"]; has || len(none) == 0 {
		t.Errorf("without a record only rules after the first revision have no known time: %+v", none)
	}
}

func TestEnforced(t *testing.T) {
	file, err := v1alpha1.Decode(v1alpha1.Example())
	if err != nil {
		t.Fatal(err)
	}
	file.Profiles[0].Rules.Volumes.Enforcement = v1alpha1.Warn
	enforced := map[Rule]bool{}
	for _, rule := range Enforced(file) {
		enforced[rule] = true
	}
	for rule, want := range map[Rule]bool{
		{Key{"user-agents", "volumes"}, 1}: false, {Key{"role-agents", "volumes"}, 1}: true, {Key{"user-agents", "service-links"}, 2}: true,
	} {
		if enforced[rule] != want {
			t.Errorf("%v: %v, want %v", rule, enforced[rule], want)
		}
	}
}

func TestRecordIsReadAsWritten(t *testing.T) {
	want := Record{
		Revision: 2, Seen: noon, Since: map[Key]time.Time{oldRule.Key: {}, newRule.Key: noon.Add(time.Hour)},
		WarnAbove: 1, WarnUntil: noon.Add(time.Minute),
	}
	cm := &corev1.ConfigMap{Data: map[string]string{"note": "an operator's", "agents.gone": always, keyWarnUntil: "stale"}}
	encode(&want, cm)
	got, err := decode(cm)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if cm.Data["note"] == "" {
		t.Error("what else is in the ConfigMap is gone")
	}
	encode(&Record{Revision: 2, Seen: noon}, cm)
	if _, has := cm.Data[keyWarnUntil]; has {
		t.Error("the time of older servers stays when it has passed")
	}
	for key, value := range map[string]string{
		keyRevision: "two", keyWarnAbove: "0", keySeen: "now", keyWarnUntil: "later", "agents.volumes": "never",
	} {
		if _, err := decode(&corev1.ConfigMap{Data: map[string]string{key: value}}); err == nil {
			t.Errorf("%s: %q is read", key, value)
		}
	}
}

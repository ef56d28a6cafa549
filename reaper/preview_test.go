package reaper

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// previewOf compares the example policy, changed, with itself, unless the first change is of today's as well.
func previewOf(t *testing.T, now time.Time, today, then func(*v1alpha1.LifecyclePolicy), records ...record) *previewing {
	t.Helper()
	p := &Preview{System: "dexorder-system", Today: examplePolicy(t), Then: examplePolicy(t), Now: now}
	if today != nil {
		today(p.Today)
	}
	then(p.Then)
	r := &previewing{Preview: p, inventory: newInventory(func(string) bool { return true }, func() time.Time { return now }), changes: &Changes{}}
	for _, o := range records {
		r.inventory.put(o, true)
	}
	return r
}

// summary is a line for each change: its name, when it is deleted today and then from now on, and what is new.
func summary(all []*Change, now time.Time) string {
	in := func(o *Outlook) string {
		switch {
		case o.CapExceeded:
			return "held"
		case o.At.IsZero():
			return "stays"
		}
		return o.At.Sub(now).String()
	}
	var lines []string
	for _, c := range changed(all) {
		lines = append(lines, fmt.Sprintf("%s %s, %s: %v", c.Name, in(&c.Today), in(&c.Then), c.News))
	}
	return strings.Join(lines, "\n")
}

func TestPreviewNamespaces(t *testing.T) {
	named := func(name string, changes ...func(*namespace)) *namespace {
		n := quiet(changes...)
		n.name = name
		return n
	}
	alone := quiet()
	lately := quiet(annotated(activityKey, stamp(30*time.Minute), idleKey, stamp(30*time.Minute)))
	for name, tc := range map[string]struct {
		today, then func(*v1alpha1.LifecyclePolicy)
		records     []record
		want        string
	}{
		"the same": {nil, func(*v1alpha1.LifecyclePolicy) {}, []record{alone}, ""},
		"idle for less": {nil, func(p *v1alpha1.LifecyclePolicy) { p.Reaper.Namespaces.IdleAfter.Duration = 10 * time.Minute },
			[]record{lately}, "agent-ceo 32m0s, 2m0s: [deleted earlier by the reaper]"},
		"idle for longer": {nil, func(p *v1alpha1.LifecyclePolicy) { p.Reaper.Namespaces.IdleAfter.Duration = 3 * time.Hour },
			[]record{alone}, "agent-ceo 2m0s, 1h2m0s: [deleted later by the reaper]"},
		"another org": {func(p *v1alpha1.LifecyclePolicy) { p.Reaper.Namespaces.Orgs = nil }, func(*v1alpha1.LifecyclePolicy) {},
			[]record{alone}, "agent-ceo stays, 2m0s: [newly deleted by the reaper]"},
		"no org": {nil, func(p *v1alpha1.LifecyclePolicy) { p.Reaper.Namespaces.Orgs = nil },
			[]record{alone}, "agent-ceo 2m0s, stays: [no longer deleted by the reaper]"},
		"left out": {nil, func(p *v1alpha1.LifecyclePolicy) { p.Profiles[1].Namespaces.Except = []string{"agent-ceo"} },
			[]record{alone}, "agent-ceo 2m0s, stays: [no longer deleted by the reaper]"},
		"a dry run ends": {func(p *v1alpha1.LifecyclePolicy) { p.Reaper.DryRun = true }, func(*v1alpha1.LifecyclePolicy) {},
			[]record{alone}, "agent-ceo stays, 2m0s: [newly deleted by the reaper]"},
		"off": {nil, func(p *v1alpha1.LifecyclePolicy) { p.Reaper.Namespaces.Mode = v1alpha1.ReaperOff },
			[]record{alone}, "agent-ceo 2m0s, stays: [no longer deleted by the reaper]"},
		"kept no more": {func(p *v1alpha1.LifecyclePolicy) { p.Reaper.Namespaces.Retain.Duration = time.Hour }, func(*v1alpha1.LifecyclePolicy) {},
			[]record{alone}, "agent-ceo 2m0s, 2m0s: [kept for less after its deletion]"},
		"kept with Secrets": {func(p *v1alpha1.LifecyclePolicy) { p.Reaper.Namespaces.Retain.Duration = time.Hour },
			func(p *v1alpha1.LifecyclePolicy) {
				p.Reaper.Namespaces.Retain.Duration, p.Reaper.Namespaces.RetainSecrets = time.Hour, true
			}, []record{alone}, "agent-ceo 2m0s, 2m0s: [kept for more after its deletion]"},
		"what runs stays": {nil, func(p *v1alpha1.LifecyclePolicy) { p.Reaper.Namespaces.IdleAfter.Duration = 10 * time.Second },
			[]record{alone, aPod(time.Hour)}, ""},
		"what is protected stays": {func(p *v1alpha1.LifecyclePolicy) { p.Reaper.DryRun = true }, func(*v1alpha1.LifecyclePolicy) {},
			[]record{quiet(func(n *namespace) { n.protected = lifecycle.ProtectionMarks(nil, map[string]string{keepKey: "true"}) }, annotated(keepKey, "true"))}, ""},
		"more than the cap": {func(p *v1alpha1.LifecyclePolicy) { p.Reaper.Namespaces.Orgs = nil },
			func(p *v1alpha1.LifecyclePolicy) { p.Reaper.Cap.Count = 1 },
			[]record{alone, named("agent-cto")},
			"agent-ceo stays, held: [newly to be deleted by the reaper, and held by its cap]\n" +
				"agent-cto stays, held: [newly to be deleted by the reaper, and held by its cap]"},
		"a higher cap": {func(p *v1alpha1.LifecyclePolicy) { p.Reaper.Cap.Count = 1 }, func(*v1alpha1.LifecyclePolicy) {},
			[]record{alone, named("agent-cto")},
			"agent-ceo held, 2m0s: [newly deleted by the reaper]\nagent-cto held, 2m0s: [newly deleted by the reaper]"},
	} {
		t.Run(name, func(t *testing.T) {
			all, err := previewOf(t, noon, tc.today, tc.then, tc.records...).namespaces(t.Context())
			if got := summary(all, noon); got != tc.want || err != nil {
				t.Errorf("%v\n%s\nwant\n%s", err, got, tc.want)
			}
		})
	}
	// Without a policy in force nothing is deleted today.
	r := previewOf(t, noon, nil, func(*v1alpha1.LifecyclePolicy) {}, alone)
	r.Today = nil
	all, _ := r.namespaces(t.Context())
	if got, want := summary(all, noon), "agent-ceo stays, 2m0s: [newly deleted by the reaper]"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	// Of one namespace alone the cap is unknown.
	r = previewOf(t, noon, nil, func(p *v1alpha1.LifecyclePolicy) { p.Reaper.Cap.Count = 0 }, alone)
	r.Namespace = "agent-ceo"
	all, _ = r.namespaces(t.Context())
	if got := summary(all, noon); got != "" {
		t.Error(got)
	}
}

func TestPreviewAgents(t *testing.T) {
	enterprise := func(p *v1alpha1.LifecyclePolicy) { p.Tiers[lifecycle.Free] = p.Tiers[lifecycle.Enterprise] }
	for name, tc := range map[string]struct {
		ago         time.Duration
		today, then func(*v1alpha1.LifecyclePolicy)
		want        string
	}{
		"the same":           {time.Hour, nil, func(*v1alpha1.LifecyclePolicy) {}, ""},
		"newly shuts down":   {time.Hour, enterprise, func(*v1alpha1.LifecyclePolicy) {}, "alice stays, 0s: [newly deleted by the reaper]"},
		"no longer":          {time.Hour, nil, enterprise, "alice 0s, stays: [no longer deleted by the reaper]"},
		"not covered":        {time.Hour, nil, func(p *v1alpha1.LifecyclePolicy) { p.Profiles[0].Namespaces.Names = []string{"x"} }, "alice 0s, stays: [no longer deleted by the reaper]"},
		"its sidecar's time": {time.Minute, nil, func(p *v1alpha1.LifecyclePolicy) { p.Reaper.Agents.After.Duration = 5 * time.Minute }, "alice 1m0s, 4m0s: [deleted later by the reaper]"},
		"off":                {time.Hour, nil, func(p *v1alpha1.LifecyclePolicy) { p.Reaper.Agents.Mode = v1alpha1.ReaperOff }, "alice 0s, stays: [no longer deleted by the reaper]"},
	} {
		t.Run(name, func(t *testing.T) {
			all, err := previewOf(t, newYear, tc.today, tc.then, alice(t, "free").workload, podOf(endedPod(tc.ago))).agents(t.Context())
			if got := summary(all, newYear); got != tc.want || err != nil {
				t.Errorf("%v\n%s\nwant\n%s", err, got, tc.want)
			}
		})
	}
}

func TestPreviewClaims(t *testing.T) {
	of := func(userType string) record {
		return recordOf(&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
			Namespace: "dexorder-agents", Name: "alice-data", CreationTimestamp: metav1.NewTime(newYear.Add(-24 * time.Hour)),
			Labels: map[string]string{key: "alice", typeKey: userType},
		}})
	}
	deletes := func(p *v1alpha1.LifecyclePolicy) {
		tier := p.Tiers[lifecycle.Free]
		tier.Storage = v1alpha1.StorageDelete
		p.Tiers[lifecycle.Free] = tier
	}
	longer := func(p *v1alpha1.LifecyclePolicy) { p.Reaper.Claims.After.Duration = time.Hour }
	for name, tc := range map[string]struct {
		then    func(*v1alpha1.LifecyclePolicy)
		records []record
		want    string
	}{
		"its type newly deletes storage":     {deletes, []record{of("free")}, "alice-data stays, 10m0s: [newly deleted by the reaper]"},
		"its agent is there":                 {deletes, []record{of("free"), alice(t, "free").workload}, ""},
		"another type":                       {deletes, []record{of("paid")}, ""},
		"an orphan for longer":               {longer, []record{of("anonymous")}, "alice-data 10m0s, 1h0m0s: [deleted later by the reaper]"},
		"its type newly keeps what it would": {func(p *v1alpha1.LifecyclePolicy) { p.Tiers[lifecycle.Anonymous] = p.Tiers[lifecycle.Paid] }, []record{of("anonymous")}, "alice-data 10m0s, stays: [no longer deleted by the reaper]"},
	} {
		t.Run(name, func(t *testing.T) {
			all, err := previewOf(t, newYear, nil, tc.then, tc.records...).claims(t.Context())
			if got := summary(all, newYear); got != tc.want || err != nil {
				t.Errorf("%v\n%s\nwant\n%s", err, got, tc.want)
			}
		})
	}
}

// The time that a preview tells of a leftover is when passes, one every minute, delete it.
func TestLeftoverOutlook(t *testing.T) {
	policy := examplePolicy(t)
	around := &surroundings{pods: nil, makers: makers{}}
	for name, tc := range map[string]struct {
		written time.Duration
		since   string
		want    time.Duration
	}{
		"written just now":     {0, "", 2 * time.Hour},
		"written half ago":     {30 * time.Minute, "", 90 * time.Minute},
		"not noted yet":        {3 * time.Hour, "", time.Hour},
		"noted long ago":       {3 * time.Hour, newYear.Add(-time.Hour).Format(time.RFC3339), 0},
		"noted, written since": {2 * time.Hour, newYear.Add(-3 * time.Hour).Format(time.RFC3339), time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			l := &leftover{
				object: object{name: "x"}, kind: "ConfigMap", madeBy: "gone", written: newYear.Add(-tc.written),
				annotations: map[string]string{lifecycle.AnnotationCreatedByPod: "worker-1"},
			}
			if tc.since != "" {
				l.annotations[lifecycle.AnnotationOrphanedSince] = tc.since
			}
			got := leftoverOutlook(l, around, policy, newYear)
			if got.At.Sub(newYear) != tc.want || got.candidate != (tc.want == 0) || l.annotations[lifecycle.AnnotationOrphanedSince] != tc.since {
				t.Errorf("%+v", got)
			}
			at := newYear
			for o := (orphan{}); ; at = at.Add(time.Minute) {
				if o = decideLeftover(l, around, &policy.Reaper.Leftovers, at); o.goes {
					break
				}
				l.annotations[lifecycle.AnnotationOrphanedSince] = o.since
			}
			if at.Sub(newYear) != tc.want {
				t.Errorf("passes delete it after %s", at.Sub(newYear))
			}
		})
	}
	l := &leftover{object: object{name: "x"}, kind: "ConfigMap", madeBy: "gone", written: newYear.Add(-5 * time.Hour)}
	if got := leftoverOutlook(l, &surroundings{makers: makers{}, mentions: &mentions{unknown: "no rights"}}, policy, newYear); !got.At.IsZero() {
		t.Errorf("what may be mentioned goes: %+v", got)
	}
}

// emptyLists are what an API server answers that has nothing of any kind.
func emptyLists(namespaces ...string) map[string]string {
	lists := map[string]string{}
	for _, k := range kinds() {
		prefix := "/api/v1/"
		switch k.name {
		case "HorizontalPodAutoscaler":
			prefix = "/apis/autoscaling/v2/"
		case "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet":
			prefix = "/apis/apps/v1/"
		case "Job", "CronJob":
			prefix = "/apis/batch/v1/"
		}
		lists[prefix+k.resource] = ""
	}
	lists["/api/v1/namespaces"] = strings.Join(namespaces, ",")
	return lists
}

// What the caller has no right to read is said, and nothing is guessed of what depends on it; the rest is compared.
func TestPreviewRights(t *testing.T) {
	const namespace = `{"metadata":{"name":"agent-ceo","uid":"1","creationTimestamp":"2026-04-30T12:00:00Z",
		"labels":{"agent-role":"ceo","org":"dexorder"},"annotations":{"last-pod-activity":"2026-05-01T09:00:00Z"}}}`
	run := func(t *testing.T, change func(*v1alpha1.LifecyclePolicy), forbidden ...string) (*Changes, []string) {
		t.Helper()
		answers := &apiAnswers{items: emptyLists(namespace), fails: map[string]int{}}
		for _, path := range forbidden {
			answers.fails[path] = http.StatusForbidden
		}
		server := httptest.NewServer(answers)
		t.Cleanup(server.Close)
		p := &Preview{Config: &rest.Config{Host: server.URL}, System: "dexorder-system", Today: examplePolicy(t), Then: examplePolicy(t), Now: noon}
		change(p.Then)
		changes, err := p.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return changes, answers.asked
	}
	t.Run("nothing differs", func(t *testing.T) {
		changes, asked := run(t, func(p *v1alpha1.LifecyclePolicy) { p.RulesRevision = 2 })
		if len(changes.Changes)+len(changes.NotRead)+len(asked) != 0 {
			t.Errorf("%+v, asked for %v", changes, asked)
		}
	})
	later := func(p *v1alpha1.LifecyclePolicy) { p.Reaper.Namespaces.IdleAfter.Duration = 2 * time.Hour }
	t.Run("all rights", func(t *testing.T) {
		changes, _ := run(t, later)
		if got, want := summary(changes.Changes, noon), "agent-ceo 1h2m0s, 2h2m0s: [deleted later by the reaper]"; !strings.HasPrefix(got, want) || len(changes.NotRead) > 0 {
			t.Errorf("%+v\n%s\nwant %s", changes, got, want)
		}
	})
	t.Run("no Services", func(t *testing.T) {
		changes, _ := run(t, later, "/api/v1/services")
		want := []string{"namespaces: list services: not for you"}
		if len(changes.Changes) > 0 || !slices.Equal(changes.NotRead, want) {
			t.Errorf("%+v, want %q", changes, want)
		}
	})
	t.Run("only what differs", func(t *testing.T) {
		changes, asked := run(t, func(p *v1alpha1.LifecyclePolicy) { p.Reaper.Agents.After.Duration = time.Hour }, "/api/v1/services")
		if len(changes.NotRead) > 0 || len(asked) != 2 {
			t.Errorf("%+v, asked for %v", changes, asked)
		}
	})
	t.Run("no ConfigMaps", func(t *testing.T) {
		changes, _ := run(t, func(p *v1alpha1.LifecyclePolicy) { p.Reaper.Leftovers.After.Duration = time.Minute }, "/api/v1/namespaces/agent-ceo/configmaps")
		want := "leftovers of 1 namespaces: agent-ceo (list configmaps: not for you)"
		if len(changes.Changes) > 0 || len(changes.NotRead) != 1 || changes.NotRead[0] != want {
			t.Errorf("%+v, want %q", changes, want)
		}
	})
}

// A preview's client sends no request by which anything could change.
func TestReadingClient(t *testing.T) {
	sent := 0
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { sent++ }))
	defer server.Close()
	client, err := readingClient(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	err = client.CoreV1().Pods("x").Delete(t.Context(), "y", metav1.DeleteOptions{})
	if err == nil || !strings.Contains(err.Error(), "DELETE /api/v1/namespaces/x/pods/y: a preview only reads") || sent > 0 {
		t.Errorf("%v, and %d were sent", err, sent)
	}
}

// Leftovers are compared with what refers to them; where that may not be read, nothing is said of them.
func TestPreviewLeftovers(t *testing.T) {
	const secrets = "/api/v1/namespaces/agent-ceo/secrets"
	const stamp = `"namespace":"agent-ceo","labels":{"` + lifecycle.LabelCreatedByPodUID + `":"0123"},
		"annotations":{"` + lifecycle.AnnotationExpiresAt + `":"2026-05-01T11:00:00Z"}`
	for name, tc := range map[string]struct {
		then      func(*v1alpha1.Reaper)
		forbidden string
		want      string
		unread    []string
	}{
		"no longer looked at": {
			then: func(r *v1alpha1.Reaper) { r.Leftovers.Mode = v1alpha1.ReaperOff }, want: "session 0s, stays: [no longer deleted by the reaper]",
		},
		"held by the cap": {then: func(r *v1alpha1.Reaper) { r.Cap.Count = 0 }, want: "session 0s, held: [no longer deleted by the reaper]"},
		"what refers to it is not read": {
			then: func(r *v1alpha1.Reaper) { r.Leftovers.Mode = v1alpha1.ReaperOff }, forbidden: "/api/v1/persistentvolumes",
			unread: []string{"leftovers of 1 namespaces: agent-ceo (list persistentvolumes: not for you)"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			answers := &apiAnswers{
				kinds: map[string][]metav1.APIResource{"v1": listable("services")}, fails: map[string]int{},
				items: map[string]string{"/api/v1/namespaces/agent-ceo/serviceaccounts": "", "/api/v1/namespaces/agent-ceo/configmaps": ""},
			}
			for path := range emptyLists() {
				slash := strings.LastIndex(path, "/")
				answers.items[path[:slash]+"/namespaces/agent-ceo"+path[slash:]] = ""
			}
			answers.items["/api/v1/namespaces/agent-ceo/services"] = `{"metadata":{"name":"refers","annotations":{"x":"mentioned"}}}`
			answers.items[secrets] = `{"metadata":{"name":"session",` + stamp + `}},{"metadata":{"name":"mentioned",` + stamp + `}}`
			if tc.forbidden != "" {
				answers.fails[tc.forbidden] = http.StatusForbidden
			}
			server := httptest.NewServer(answers)
			defer server.Close()
			client, err := readingClient(&rest.Config{Host: server.URL, QPS: -1})
			if err != nil {
				t.Fatal(err)
			}
			r := previewOf(t, noon, nil, func(p *v1alpha1.LifecyclePolicy) { tc.then(&p.Reaper) }, quiet())
			r.client = client
			all, err := r.leftovers(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := summary(all, noon); got != tc.want || !slices.Equal(r.changes.NotRead, tc.unread) {
				t.Errorf("%s, not read %q\nwant %s, %q", got, r.changes.NotRead, tc.want, tc.unread)
			}
		})
	}
}

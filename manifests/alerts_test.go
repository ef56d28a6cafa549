package manifests

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/dexorder/agent-lifecycle/breaker"
	"github.com/dexorder/agent-lifecycle/events"
	"github.com/dexorder/agent-lifecycle/gateway"
	"github.com/dexorder/agent-lifecycle/reaper"
)

// rule is an alert of a PrometheusRule.
type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

const (
	withAlerts        = "overlays/prod with components/alerts"
	withCronJobAlerts = "overlays/staging with components/alerts and components/reaper-cronjob"
)

// alertRules are the alerts of an installation.
func alertRules(t *testing.T, installation string) []rule {
	t.Helper()
	object := one(t, render(t, installation), "PrometheusRule", "agent-lifecycle")
	groups, _, err := unstructured.NestedSlice(object.Object, "spec", "groups")
	if err != nil {
		t.Fatal(err)
	}
	var rules []rule
	for _, g := range groups {
		var group struct {
			Name  string `json:"name"`
			Rules []rule `json:"rules"`
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(g.(map[string]any), &group, true); err != nil {
			t.Fatal(err)
		}
		rules = append(rules, group.Rules...)
	}
	if len(rules) == 0 {
		t.Fatal("no rules")
	}
	return rules
}

// cronJobAlert is the one that there is only where the reaper is a CronJob.
func cronJobAlert(t *testing.T) rule {
	t.Helper()
	rules := alertRules(t, withCronJobAlerts)
	i := slices.IndexFunc(rules, func(r rule) bool { return r.Alert == "ReaperJobsFail" })
	if i < 0 {
		t.Fatal("there is no alert ReaperJobsFail")
	}
	return rules[i]
}

func TestAlertsSayWhatToDo(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range append(alertRules(t, withAlerts), cronJobAlert(t)) {
		if seen[r.Alert] {
			t.Errorf("%s is there twice", r.Alert)
		}
		seen[r.Alert] = true
		if s := r.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s: severity %q, want critical or warning", r.Alert, s)
		}
		for _, key := range []string{"summary", "description", "runbook_url"} {
			if r.Annotations[key] == "" {
				t.Errorf("%s has no %s", r.Alert, key)
			}
		}
	}
}

// Where the reaper is a CronJob nobody leads: the alert on that would never end. Another one takes its place.
func TestAlertsOfCronJob(t *testing.T) {
	names := func(installation string) (all []string) {
		for _, r := range alertRules(t, installation) {
			all = append(all, r.Alert)
		}
		return all
	}
	loop, job := names(withAlerts), names(withCronJobAlerts)
	want := slices.Clone(loop)
	i := slices.Index(want, "ReaperWithoutLeader")
	if i < 0 {
		t.Fatalf("there is no ReaperWithoutLeader: %v", want)
	}
	want[i] = "ReaperJobsFail"
	if diff := cmp.Diff(want, job); diff != "" {
		t.Errorf("alerts of %s (-want +got):\n%s", withCronJobAlerts, diff)
	}
	for _, r := range alertRules(t, withCronJobAlerts) {
		if strings.Contains(r.Expr, "agent_lifecycle_reaper_") && strings.Contains(r.Expr, "absent") {
			t.Errorf("%s: %q fires where no reaper has metrics", r.Alert, r.Expr)
		}
	}
}

var metricName = regexp.MustCompile(`\bagent_lifecycle_[a-z_]+\b`)

// An alert on a metric that nobody exports never fires.
func TestAlertsKnowTheirMetrics(t *testing.T) {
	exported := exportedMetrics()
	for _, r := range alertRules(t, withAlerts) {
		names := metricName.FindAllString(r.Expr, -1)
		if len(names) == 0 {
			t.Errorf("%s: %q names no metric", r.Alert, r.Expr)
		}
		for _, name := range names {
			if !exported[strings.TrimSuffix(name, "_count")] { // of a histogram
				t.Errorf("%s: no code exports %s", r.Alert, name)
			}
		}
		for _, pair := range []string{"()", "{}", "[]"} {
			if strings.Count(r.Expr, pair[:1]) != strings.Count(r.Expr, pair[1:]) {
				t.Errorf("%s: %q does not balance its %s", r.Alert, r.Expr, pair)
			}
		}
		if counts := strings.Contains(r.Expr, "_total") || strings.Contains(r.Expr, "_count"); counts != strings.Contains(r.Expr, "increase(") {
			t.Errorf("%s: %q: counters, and nothing else, are looked at by their increase", r.Alert, r.Expr)
		}
	}
}

// exportedMetrics are the names that the breaker, the reaper, the gateway and the publisher of events register.
func exportedMetrics() map[string]bool {
	registry := nameRegistry{}
	breaker.NewMetrics(registry)
	reaper.NewMetrics(registry)
	gateway.NewMetrics(registry)
	events.NewMetrics(registry)
	return registry
}

// nameRegistry is a registry that remembers names, also of metrics that have no value yet.
type nameRegistry map[string]bool

func (r nameRegistry) Register(c prometheus.Collector) error {
	descriptions := make(chan *prometheus.Desc, 100)
	c.Describe(descriptions)
	close(descriptions)
	for d := range descriptions {
		// There is no other way to ask for it.
		r[metricName.FindString(d.String())] = true
	}
	return nil
}

func (r nameRegistry) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		_ = r.Register(c)
	}
}

func (r nameRegistry) Unregister(prometheus.Collector) bool { return false }

const runbooks = "https://github.com/dexorder/agent-lifecycle/blob/main/docs/operations.md#"

// Whoever is woken finds the section that the alert names.
func TestRunbooksExist(t *testing.T) {
	page, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	anchors := map[string]bool{}
	for line := range strings.Lines(string(page)) {
		if heading, is := strings.CutPrefix(strings.TrimSpace(line), "## "); is {
			anchor := strings.ReplaceAll(strings.ToLower(heading), " ", "-")
			anchors[notInAnchors.ReplaceAllString(anchor, "")] = true
		}
	}
	for _, r := range append(alertRules(t, withAlerts), cronJobAlert(t)) {
		anchor, is := strings.CutPrefix(r.Annotations["runbook_url"], runbooks)
		if !is || !anchors[anchor] {
			t.Errorf("%s: runbook_url %q is no section of docs/operations.md", r.Alert, r.Annotations["runbook_url"])
		}
	}
}

// notInAnchors is what a heading loses when it becomes an anchor.
var notInAnchors = regexp.MustCompile(`[^a-z0-9-]`)

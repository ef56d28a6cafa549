package webhook

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"gomodules.xyz/jsonpatch/v2"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiversion "k8s.io/apimachinery/pkg/version"
)

// fakeVersion is an API server's version; empty, it cannot be read.
type fakeVersion string

func (v *fakeVersion) ServerVersion() (*apiversion.Info, error) {
	if *v == "" {
		return nil, errors.New("unreachable")
	}
	return &apiversion.Info{GitVersion: string(*v)}, nil
}

// storedOne is a cluster with one Deployment, or none.
type storedOne struct{ d *appsv1.Deployment }

func (s *storedOne) StoredDeployment(context.Context, string, string) (*appsv1.Deployment, error) {
	return s.d, nil
}

func newTestRestartRules(v *fakeVersion) *RestartRules {
	return NewRestartRules(v, &storedOne{}, NewMetrics(prometheus.NewRegistry(), "test"), slog.New(slog.DiscardHandler))
}

func TestRestartRulesByVersion(t *testing.T) {
	for version, want := range map[fakeVersion]bool{
		"": false, "nonsense": false, "v1.34.9": false, "v1.35.0": true, "v1.35.0-alpha.1": true, "v1.36.3+k3s1": true, "v2.0.0": true,
	} {
		r := newTestRestartRules(&version)
		if err := r.ask(); (err != nil) != (version == "" || version == "nonsense") {
			t.Errorf("%q: %v", version, err)
		}
		if got := r.Kept(); got != want {
			t.Errorf("%q: kept %v, want %v", version, got, want)
		}
	}
}

// What is known of a server outlasts its being unreachable, and not its being replaced.
func TestRestartRulesFollowTheServer(t *testing.T) {
	version := fakeVersion("v1.36.0")
	r := newTestRestartRules(&version)
	for _, step := range []struct {
		version fakeVersion
		kept    bool
	}{{"v1.36.0", true}, {"", true}, {"v1.34.0", false}, {"", false}, {"v1.36.1", true}} {
		version = step.version
		_ = r.ask()
		if got := r.Kept(); got != step.kept {
			t.Errorf("after %q: kept %v", step.version, got)
		}
	}
}

func TestRestartRulesObserve(t *testing.T) {
	with := newDeployment()
	with.Spec.Template.Spec.Containers[0].RestartPolicyRules = []corev1.ContainerRestartRule{{}}
	dropped := []jsonpatch.Operation{
		{Operation: "add", Path: "/spec/template/spec/containers/0/restartPolicy"},
		{Operation: "add", Path: "/spec/template/spec/containers/0/restartPolicyRules"},
	}
	tests := []struct {
		name    string
		d       *appsv1.Deployment
		missing []jsonpatch.Operation
		kept    bool
		again   bool // is the next Deployment looked at?
	}{
		{"kept", with, nil, true, false},
		{"a tier without rules", newDeployment(), nil, true, true},
		{"dropped", newDeployment(), dropped, false, false},
		{
			"did not come through injection", newDeployment(),
			append([]jsonpatch.Operation{{Operation: "add", Path: "/spec/template/spec/containers/-"}}, dropped...), true, true,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			version := fakeVersion("v1.36.0")
			r := newTestRestartRules(&version)
			now := time.Now()
			r.now = func() time.Time { return now }
			must(t, r.ask())
			show := func(missing []jsonpatch.Operation) (looked bool) {
				r.Observe(covered, tt.d, func(*appsv1.Deployment) []jsonpatch.Operation { looked = true; return missing })
				return looked
			}
			stored := tt.d.DeepCopy()
			stored.CreationTimestamp = metav1.NewTime(now)
			r.stored = &storedOne{stored}
			show(tt.missing)
			if !r.Kept() {
				t.Fatal("concluded from what a request says")
			}
			lookAtSightings(t, r)
			if got := r.Kept(); got != tt.kept {
				t.Errorf("kept %v, want %v", got, tt.kept)
			}
			if looked := show(nil); looked != tt.again {
				t.Errorf("looked at the next one: %v, want %v", looked, tt.again)
			}
			now = now.Add(lookAgain)
			if !r.Kept() {
				t.Error("it is never tried again")
			}
			if !show(nil) {
				t.Error("after a while nothing is looked at")
			}
		})
	}
}

// lookAtSightings looks at all Deployments that were shown, as Run does.
func lookAtSightings(t *testing.T, r *RestartRules) {
	t.Helper()
	for len(r.sightings) > 0 {
		must(t, r.look(t.Context(), <-r.sightings))
	}
}

// A review that nobody stored anything after tells nothing: restart rules are not switched by a stranger.
func TestForgedReviewSwitchesNoRestartRules(t *testing.T) {
	missing := []jsonpatch.Operation{{Operation: "add", Path: "/spec/template/spec/containers/0/restartPolicyRules"}}
	old := newDeployment()
	old.CreationTimestamp = metav1.NewTime(time.Now().Add(-2 * storedWithin))
	other := newDeployment()
	other.CreationTimestamp = metav1.Now()
	for name, tt := range map[string]struct {
		stored  *appsv1.Deployment
		missing []jsonpatch.Operation // of what is stored
	}{
		"nothing is stored":             {nil, nil},
		"an older one is stored":        {old, missing},
		"what is stored lacks no rules": {other, nil},
	} {
		t.Run(name, func(t *testing.T) {
			version := fakeVersion("v1.36.0")
			r := newTestRestartRules(&version)
			r.stored = &storedOne{tt.stored}
			must(t, r.ask())
			forged := newDeployment()
			r.Observe(covered, forged, func(d *appsv1.Deployment) []jsonpatch.Operation {
				if d == forged {
					return missing
				}
				return tt.missing
			})
			if len(r.sightings) != 1 {
				t.Fatalf("%d sightings, want 1", len(r.sightings))
			}
			lookAtSightings(t, r)
			if !r.Kept() {
				t.Error("a forged review switched restart rules off")
			}
		})
	}
}

package gateway

import (
	"errors"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

type anonymousGoes struct{}

func (anonymousGoes) StopsWhenIdle(lifecycle.UserType) bool { return true }

func (anonymousGoes) DeletesStorage(t lifecycle.UserType) bool { return t == lifecycle.Anonymous }

func newTestGateway(t *testing.T) *Gateway {
	t.Helper()
	g := &Gateway{options: Options{
		Template: exampleTemplate(t), Tiers: anonymousGoes{}, DefaultUserType: lifecycle.Free, Now: time.Now, Limits: DefaultLimits(),
		Metrics: NewMetrics(prometheus.NewRegistry()), Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}}
	g.limiter = newLimiter(g.options.Limits, time.Now)
	return g
}

func metaOf(userType lifecycle.UserType) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: "x", UID: "u", Labels: map[string]string{lifecycle.LabelUserType: string(userType)},
		Annotations: map[string]string{lifecycle.AnnotationUser: "alice", lifecycle.AnnotationRequest: `{"image":"old","env":{"A":"1"}}`},
	}
}

func TestDecideWant(t *testing.T) {
	g := newTestGateway(t)
	d := func(userType lifecycle.UserType) *appsv1.Deployment {
		return &appsv1.Deployment{ObjectMeta: metaOf(userType)}
	}
	c := func(userType lifecycle.UserType) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{ObjectMeta: metaOf(userType)}
	}
	dying := d(lifecycle.Free)
	dying.DeletionTimestamp = new(metav1.Now())
	dyingClaim := c(lifecycle.Anonymous)
	dyingClaim.DeletionTimestamp = new(metav1.Now())
	foreign := d(lifecycle.Free)
	foreign.Annotations = nil
	asks := func(t lifecycle.UserType) *Request { return &Request{UserType: t} }
	for _, tt := range []struct {
		name       string
		request    *Request
		deployment *appsv1.Deployment
		claim      *corev1.PersistentVolumeClaim
		want       lifecycle.UserType
		err        error
	}{
		{"new", &Request{}, nil, nil, lifecycle.Free, nil},
		{"new, of a type", asks(lifecycle.Paid), nil, nil, lifecycle.Paid, nil},
		{"nobody wakes", nil, nil, nil, "", errNoAgent},
		{"wakes with its storage", nil, nil, c(lifecycle.Paid), lifecycle.Paid, nil},
		{"is there", nil, d(lifecycle.Enterprise), c(lifecycle.Enterprise), lifecycle.Enterprise, nil},
		{"raised", asks(lifecycle.Paid), d(lifecycle.Anonymous), c(lifecycle.Anonymous), lifecycle.Paid, nil},
		{"raised half way", &Request{}, d(lifecycle.Anonymous), c(lifecycle.Paid), lifecycle.Paid, nil},
		{"lowered where storage stays", asks(lifecycle.Free), d(lifecycle.Paid), c(lifecycle.Paid), lifecycle.Free, nil},
		{"lowered", asks(lifecycle.Anonymous), d(lifecycle.Free), nil, "", errTier},
		{"lowered against the claim", asks(lifecycle.Anonymous), d(lifecycle.Anonymous), c(lifecycle.Free), "", errTier},
		{"lowered while it sleeps", asks(lifecycle.Anonymous), nil, c(lifecycle.Free), "", errTier},
		{"going", &Request{}, dying, c(lifecycle.Free), "", &again{}},
		{"storage going", &Request{}, nil, dyingClaim, "", &again{}},
		{"foreign", &Request{}, foreign, nil, "", errForeign},
	} {
		w, err := g.decideWant("alice", tt.request, tt.deployment, tt.claim)
		if retry := (*again)(nil); errors.As(tt.err, &retry) {
			if !errors.As(err, &retry) {
				t.Errorf("%s: %v, want another attempt", tt.name, err)
			}
			continue
		}
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
		}
		if err == nil && (w.userType != tt.want || w.deletes != (tt.want == lifecycle.Anonymous)) {
			t.Errorf("%s: %+v, want %s", tt.name, w, tt.want)
		}
	}
}

// A claim that is to be kept loses its owner in the step that makes it so, before there is a Deployment to speak of.
func TestChangedClaim(t *testing.T) {
	agent := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "agent-a", UID: "new"}}
	owner := func(uid string) []metav1.OwnerReference {
		return []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "agent-a", UID: "new", BlockOwnerDeletion: new(true)}}[:len(uid)/3]
	}
	old := owner("new")
	old[0].UID = "old"
	for name, marks := range map[string]metav1.ObjectMeta{
		"an annotation": {Annotations: map[string]string{lifecycle.AnnotationDoNotReap: "true"}},
		"a label":       {Labels: map[string]string{lifecycle.AnnotationDoNotReap: "true"}},
	} {
		w := &want{name: "agent-a", user: "a", userType: lifecycle.Anonymous, deletes: true}
		if c := w.changedClaim(&corev1.PersistentVolumeClaim{ObjectMeta: marks}, agent); len(c.OwnerReferences) > 0 {
			t.Errorf("protected by %s, the claim would go with its agent: %v", name, c.OwnerReferences)
		}
	}
	for _, tt := range []struct {
		name    string
		deletes bool
		agent   *appsv1.Deployment
		owners  []metav1.OwnerReference
		want    []metav1.OwnerReference
	}{
		{"kept, first step", false, nil, owner("new"), nil},
		{"kept, with its Deployment", false, agent, owner("new"), nil},
		{"goes, before there is one", true, nil, nil, nil},
		{"goes", true, agent, nil, owner("new")},
		{"goes, after another one", true, agent, old, owner("new")},
	} {
		w := &want{name: "agent-a", user: "a", userType: lifecycle.Paid, deletes: tt.deletes}
		c := w.changedClaim(&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{OwnerReferences: tt.owners}}, tt.agent)
		if len(c.OwnerReferences) != len(tt.want) || len(tt.want) > 0 && c.OwnerReferences[0].UID != tt.want[0].UID {
			t.Errorf("%s: owners %v", tt.name, c.OwnerReferences)
		}
		if c.Labels[lifecycle.LabelUserType] != "paid" {
			t.Errorf("%s: labels %v", tt.name, c.Labels)
		}
		if again := w.changedClaim(c, tt.agent); again != nil {
			t.Errorf("%s: changed twice", tt.name)
		}
	}
}

func TestChangedDeployment(t *testing.T) {
	w := &want{name: "agent-a", user: "a", userType: lifecycle.Free, asked: remembered{Image: "one", Env: map[string]string{"A": "1$", "HOME": "/x"}}}
	o, err := exampleTemplate(t).render("agent-a")
	if err != nil {
		t.Fatal(err)
	}
	d := w.newDeployment(o.deployment)
	fresh, err := exampleTemplate(t).render("agent-a")
	if err != nil {
		t.Fatal(err)
	}
	d.Spec.Template.Spec.Containers = append(d.Spec.Template.Spec.Containers, corev1.Container{Name: "lifecycle-sidecar"})
	c := &d.Spec.Template.Spec.Containers[0]
	c.Env = append(c.Env, corev1.EnvVar{Name: lifecycle.EnvIdleGraceSeconds, Value: "10"})
	if w.changedDeployment(d, fresh.deployment) != nil {
		t.Error("what is as it should be is changed")
	}
	w.asked = w.asked.with(&Request{Image: "two", Env: map[string]string{"B": "2"}})
	changed := w.changedDeployment(d, fresh.deployment)
	got := changed.Spec.Template.Spec.Containers[0]
	want := []corev1.EnvVar{{Name: lifecycle.EnvIdleGraceSeconds, Value: "10"}, {Name: "HOME", Value: "/data"}, {Name: "B", Value: "2"}}
	if got.Image != "two" || !slices.Equal(got.Env, want) || len(changed.Spec.Template.Spec.Containers) != 2 {
		t.Errorf("image %s, env %v, want %v", got.Image, got.Env, want)
	}
	if c.Env[0].Value != "1$$" {
		t.Errorf("env %v", c.Env)
	}
}

package integration

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/internal/installation"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/provision"
)

// TestProvision shows a role agent's namespace from nothing to its end, with the webhook and the rights of the manifests.
func TestProvision(t *testing.T) {
	t.Parallel()
	c := installWith(t, controlplane.Options{ControllerManager: true}, "--reaper=false")
	t.Run("twice", func(t *testing.T) { testProvisionTwice(t, c) })
	t.Run("every component", func(t *testing.T) { testProvisionComponents(t, c) })
	t.Run("scaled", func(t *testing.T) { testProvisionScaled(t, c) })
	t.Run("overlays", func(t *testing.T) { testProvisionOverlays(t, c) })
	t.Run("refusals", func(t *testing.T) { testProvisionRefusals(t, c) })
	t.Run("commands", func(t *testing.T) { testProvisionCommands(t, c) })
	t.Run("deprovision", func(t *testing.T) { testDeprovision(t, c) })
}

// provisioning is a Provisioner with the administrator's access.
type provisioning struct {
	*cluster
	*provision.Provisioner
}

func (c *cluster) provisioning(t *testing.T) provisioning {
	t.Helper()
	p, err := provision.New(c.plane.Config, installation.SystemNamespace, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return provisioning{c, p}
}

func (p provisioning) render(t *testing.T, role provision.Role) *provision.Rendered {
	t.Helper()
	r, warning, err := p.Render(t.Context(), role)
	if err != nil {
		t.Fatal(err)
	}
	// This cluster's reaper has no account of its own.
	if want := slices.Contains(role.Components, "reaper-account") || role.Name == "marketing"; strings.Contains(warning, "never reap it") != want {
		t.Errorf("%s: warning %q", role.Name, warning)
	}
	return r
}

func (p provisioning) plan(t *testing.T, role provision.Role) *provision.Plan {
	t.Helper()
	plan, err := p.Plan(t.Context(), p.render(t, role))
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func (p provisioning) apply(t *testing.T, plan *provision.Plan) {
	t.Helper()
	if err := p.Apply(t.Context(), plan); err != nil {
		t.Fatalf("%v%s", err, p.Logs())
	}
}

// versions tell for each object whether it was written.
func (p provisioning) versions(t *testing.T, r *provision.Rendered) map[string]string {
	t.Helper()
	template, err := r.Template(installation.SystemNamespace)
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	for _, o := range append(r.Objects[:len(r.Objects):len(r.Objects)], template) {
		live := &unstructured.Unstructured{}
		live.SetGroupVersionKind(o.GroupVersionKind())
		if err := p.Client.Get(t.Context(), client.ObjectKeyFromObject(o), live); err != nil {
			t.Fatal(err)
		}
		version := live.GetResourceVersion()
		if _, has := live.Object["status"]; has { // which controllers write at any time
			version = fmt.Sprint(live.GetGeneration())
			for _, entry := range live.GetManagedFields() {
				if entry.Manager == provision.FieldManager {
					version += fmt.Sprintf(" %s at %s", entry.Operation, entry.Time)
				}
			}
		}
		versions[o.GetKind()+"/"+o.GetName()] = version
	}
	return versions
}

func changed(plan *provision.Plan) string {
	var names []string
	for _, change := range plan.Changes {
		names = append(names, change.Object)
	}
	return strings.Join(names, ", ")
}

// What an autoscaler sets is neither put back by provisioning, also when something else is, nor a drift.
func testProvisionScaled(t *testing.T, c *cluster) {
	p := c.provisioning(t)
	role := provision.Role{Name: "sleeper", Org: "dexorder", Environment: "test"}
	const ns = "agent-sleeper"
	p.apply(t, p.plan(t, role))
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "agent"}}
	sleep := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":0}}`))
	if err := c.Client.Patch(t.Context(), d, sleep); err != nil {
		t.Fatal(err)
	}
	drift := func() string {
		t.Helper()
		r := c.newReaping(t)
		r.policy.Reaper.Namespaces.Mode = "Off"
		r.clock.pass(20 * time.Minute)
		r.once(t)
		return p.namespace(t, ns).Annotations[lifecycle.AnnotationDrift]
	}
	if got := changed(p.plan(t, role)); got != "Deployment agent" {
		t.Errorf("scaled to 0 by hand, %q would be changed", got)
	}
	if got := drift(); !strings.Contains(got, "spec.replicas is 0, in the template 1") {
		t.Errorf("scaled to 0 by hand, its drift is %q", got)
	}
	c.create(t, &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "keda-hpa-agent"},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			MaxReplicas:    1,
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "agent"},
		},
	})
	plan := p.plan(t, role)
	if len(plan.Changes) > 0 || len(plan.Scaled) != 1 || plan.Scaled[0] != (provision.Scaled{
		Object: "Deployment agent", Field: "spec.replicas", By: "HorizontalPodAutoscaler keda-hpa-agent",
	}) {
		t.Errorf("with an autoscaler %q would be changed, left to it are %v", changed(plan), plan.Scaled)
	}
	if got := drift(); got != "" {
		t.Errorf("with an autoscaler its drift is %q", got)
	}
	role.Image = "ghcr.io/dexorder/agent:v2"
	p.apply(t, p.plan(t, role))
	if err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(d), d); err != nil {
		t.Fatal(err)
	}
	if image := d.Spec.Template.Spec.Containers[0].Image; *d.Spec.Replicas != 0 || image != role.Image {
		t.Errorf("it has %d replicas of %s", *d.Spec.Replicas, image)
	}
}

// What is provisioned twice is written once; what somebody changed is shown and put back; Secrets are nobody's business.
func testProvisionTwice(t *testing.T, c *cluster) {
	p := c.provisioning(t)
	role := provision.Role{Name: "writer", Org: "dexorder", Environment: "test"}
	const ns = "agent-writer"
	r := p.render(t, role)
	first := p.plan(t, role)
	for _, change := range first.Changes {
		// The template holds all that the others have shown.
		template := change.Object == "ConfigMap role.writer.dexorder.test"
		if !change.New || strings.Contains(change.Diff, "+kind: ") == template {
			t.Errorf("%s: new %t\n%s", change.Object, change.New, change.Diff)
		}
	}
	if len(first.Changes) != len(r.Objects)+1 || len(first.Missing) != 2 || !first.Missing[0].Optional {
		t.Errorf("%d changes of %d objects, missing %v", len(first.Changes), len(r.Objects), first.Missing)
	}
	if p.namespace(t, ns) != nil {
		t.Fatal("planning made the namespace")
	}
	p.apply(t, first)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "api-keys"}, StringData: map[string]string{"KEY": "the-real-one"}}
	c.create(t, secret)

	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "agent"}}
	eventually(t, "status of the Deployment", func() (bool, error) {
		err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(d), d)
		return d.Status.ObservedGeneration == d.Generation && d.Status.UnavailableReplicas == 1, err
	})
	if len(d.Spec.Template.Spec.Containers) != 2 {
		t.Errorf("the agent has %d containers, want its sidecar too", len(d.Spec.Template.Spec.Containers))
	}
	before := p.versions(t, r)
	second := p.plan(t, role)
	if len(second.Changes) > 0 {
		t.Errorf("the second time changes %s:\n%s", changed(second), second.Changes[0].Diff)
	}
	if len(second.Missing) != 1 || second.Missing[0].Name != "mcp" {
		t.Errorf("missing: %v", second.Missing)
	}
	p.apply(t, first) // all of it once more
	for name, version := range p.versions(t, r) {
		if version != before[name] {
			t.Errorf("%s was written by applying it again: %s, was %s", name, version, before[name])
		}
	}
	var sets appsv1.ReplicaSetList
	if err := c.Client.List(t.Context(), &sets, client.InNamespace(ns)); err != nil || len(sets.Items) != 1 {
		t.Errorf("%d ReplicaSets, want the agent not restarted; %v", len(sets.Items), err)
	}

	// The reaper finds nothing to say.
	reaping := c.newReaping(t)
	reaping.policy.Reaper.Namespaces.Mode = "Off"
	reaping.clock.pass(20 * time.Minute)
	reaping.once(t)
	if note := p.namespace(t, ns).Annotations[lifecycle.AnnotationDrift]; note != "" {
		t.Errorf("as it was provisioned it differs from its template: %s", note)
	}

	patch := func(o client.Object, patch string) {
		t.Helper()
		if err := c.Client.Patch(t.Context(), o, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
			t.Fatal(err)
		}
	}
	patch(&corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "role-namespace"}}, `{"spec":{"hard":{"pods":"99"}}}`)
	dns := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "dns"}}
	if err := c.Client.Delete(t.Context(), dns); err != nil {
		t.Fatal(err)
	}
	reaping.clock.pass(20 * time.Minute)
	reaping.once(t)
	note := p.namespace(t, ns).Annotations[lifecycle.AnnotationDrift]
	if !strings.Contains(note, "2 differences") || !strings.Contains(note, "NetworkPolicy dns is missing") {
		t.Errorf("the reaper noted %q", note)
	}
	drifted := p.plan(t, role)
	if got := changed(drifted); got != "ResourceQuota role-namespace, NetworkPolicy dns" {
		t.Fatalf("drifted: %s", got)
	}
	if diff := drifted.Changes[0].Diff; !strings.Contains(diff, "-    pods: \"99\"\n+    pods: \"10\"\n") {
		t.Errorf("diff:\n%s", diff)
	}
	p.apply(t, drifted)
	reaping.clock.pass(20 * time.Minute)
	reaping.once(t)
	if note := p.namespace(t, ns).Annotations[lifecycle.AnnotationDrift]; note != "" {
		t.Errorf("provisioned again it differs from its template: %s", note)
	}
	uid, version := secret.UID, secret.ResourceVersion
	c.get(t, secret)
	if secret.UID != uid || secret.ResourceVersion != version || string(secret.Data["KEY"]) != "the-real-one" {
		t.Errorf("the Secret was touched: %+v", secret)
	}

	// A new image reaches it, and its sidecar with it.
	role.Image = "ghcr.io/dexorder/agent:v2"
	update := p.plan(t, role)
	if got := changed(update); got != "Deployment agent, ConfigMap role.writer.dexorder.test" {
		t.Errorf("another image changes %s", got)
	}
	p.apply(t, update)
	if again := p.plan(t, role); len(again.Changes) > 0 {
		t.Errorf("after that: %s\n%s", changed(again), again.Changes[0].Diff)
	}
	// What the webhook would refuse is refused before anything is changed.
	role.Image = "docker.io/library/nginx:1"
	if _, err := p.Plan(t.Context(), p.render(t, role)); !errors.Is(err, provision.ErrRefused) || !strings.Contains(err.Error(), "docker.io/library/nginx") {
		t.Errorf("an image that is not allowed: %v", err)
	}
}

// Every component of the template is taken by the API server and by the webhook, and leads nowhere but to this cluster's API server.
func testProvisionComponents(t *testing.T, c *cluster) {
	p := c.provisioning(t)
	role := provision.Role{Name: "all", Org: "dexorder", Environment: "test", Components: provision.Components()}
	p.apply(t, p.plan(t, role))
	if again := p.plan(t, role); len(again.Changes) > 0 {
		t.Errorf("the second time changes %s:\n%s", changed(again), again.Changes[0].Diff)
	}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kubernetes"}}
	c.get(t, service)
	for _, name := range []string{"self-delete", "kubernetes-api"} {
		np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "agent-all", Name: name}}
		c.get(t, np)
		found := false
		for _, rule := range np.Spec.Egress {
			for _, peer := range rule.To {
				found = found || peer.IPBlock.CIDR == service.Spec.ClusterIP+"/32" && rule.Ports[0].Port.IntValue() == int(service.Spec.Ports[0].Port)
			}
		}
		if !found || len(np.Spec.Egress) < 2 {
			t.Errorf("policy %s leads to %+v, want the Service %s and what is behind it", name, np.Spec.Egress, service.Spec.ClusterIP)
		}
	}
}

func testProvisionOverlays(t *testing.T, c *cluster) {
	p := c.provisioning(t)
	for name, role := range map[string]provision.Role{
		"agent-marketing":   {Name: "marketing", Dir: "../manifests/role-namespace/overlays/marketing-production"},
		"agent-ceo-staging": {Name: "ceo", Dir: "../manifests/role-namespace/overlays/ceo-staging"},
	} {
		p.apply(t, p.plan(t, role))
		if again := p.plan(t, role); len(again.Changes) > 0 {
			t.Errorf("%s: the second time changes %s:\n%s", name, changed(again), again.Changes[0].Diff)
		}
		if ns := p.namespace(t, name); ns.Labels[lifecycle.LabelAgentRole] != role.Name {
			t.Errorf("%s: labels %v", name, ns.Labels)
		}
	}
	// Without its keys the CEO does not start, and the reaper says so.
	reaping := c.newReaping(t)
	reaping.policy.Reaper.Namespaces.Mode = "Off"
	reaping.clock.pass(20 * time.Minute)
	reaping.once(t)
	if note := p.namespace(t, "agent-ceo-staging").Annotations[lifecycle.AnnotationDrift]; !strings.Contains(note, "Secret api-keys is missing") {
		t.Errorf("noted %q", note)
	}
}

func testProvisionRefusals(t *testing.T, c *cluster) {
	p := c.provisioning(t)
	refused := func(name, want string, changes ...func(*corev1.Namespace)) {
		t.Helper()
		c.roleNamespace(t, "agent-"+name, append([]func(*corev1.Namespace){func(n *corev1.Namespace) {
			n.Labels[lifecycle.LabelAgentRole] = name
		}}, changes...)...)
		_, err := p.Plan(t.Context(), p.render(t, provision.Role{Name: name, Org: "dexorder", Environment: "test"}))
		if !errors.Is(err, provision.ErrRefused) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	refused("strangers", "has no label agent-role", func(n *corev1.Namespace) { delete(n.Labels, lifecycle.LabelAgentRole) })
	refused("others", `is of the role "another"`, func(n *corev1.Namespace) { n.Labels[lifecycle.LabelAgentRole] = "another" })
	refused("marked", "is marked for reaping since 2026-01-01T00:00:00Z", func(n *corev1.Namespace) {
		n.Annotations[lifecycle.AnnotationReaping] = "2026-01-01T00:00:00Z"
	})
	refused("unwanted", "kubectl agents deprovision --undo agent-unwanted", func(n *corev1.Namespace) {
		n.Annotations[lifecycle.AnnotationDeprovisioned] = "2026-01-01T00:00:00Z somebody"
	})

	inOrg := func(n *corev1.Namespace) { n.Labels[lifecycle.LabelOrg] = "other" }
	refused("traded", `is of the role "traded" in org "other" and environment "test", and not in org "dexorder" and environment "test": `+
		`accepted are --org other --env test; `, inOrg)
	refused("moved", `kubectl label namespace agent-moved --overwrite org=dexorder environment=test`, func(n *corev1.Namespace) {
		n.Labels[lifecycle.LabelEnvironment] = "production"
	})
	if got := p.namespace(t, "agent-traded").Labels[lifecycle.LabelOrg]; got != "other" {
		t.Errorf("what was refused has become of org %q", got)
	}
	// What has no label yet is nobody's.
	c.roleNamespace(t, "agent-nobodys", func(n *corev1.Namespace) {
		n.Labels = map[string]string{lifecycle.LabelAgentRole: "nobodys"}
	})
	if got := changed(p.plan(t, provision.Role{Name: "nobodys", Org: "dexorder", Environment: "test"})); !strings.HasPrefix(got, "Namespace agent-nobodys, ") {
		t.Errorf("a namespace without org and environment: %s", got)
	}

	const name = "agent-leaving"
	ns := c.roleNamespace(t, name, func(n *corev1.Namespace) { n.Labels[lifecycle.LabelAgentRole] = "leaving" })
	held := configMap(name, "held", func(o *metav1.ObjectMeta) { o.Finalizers = []string{"e2e.lifecycle.dexorder.io/hold"} })
	c.create(t, held)
	if err := c.Client.Delete(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what holds the namespace", func() (bool, error) {
		_, err := p.Plan(t.Context(), p.render(t, provision.Role{Name: "leaving", Org: "dexorder", Environment: "test"}))
		return errors.Is(err, provision.ErrRefused) && strings.Contains(err.Error(), "has been in deletion since ") &&
			strings.Contains(err.Error(), "e2e.lifecycle.dexorder.io/hold"), err
	})
	live := p.namespace(t, name)
	if _, err := p.PlanStop(t.Context(), live, "me"); !errors.Is(err, provision.ErrRefused) {
		t.Errorf("deprovision: %v", err)
	}
	if _, err := p.PlanUndo(t.Context(), live); !errors.Is(err, provision.ErrRefused) || !strings.Contains(err.Error(), "kubectl agents restore agent-leaving") {
		t.Errorf("undo: %v", err)
	}
	c.get(t, held)
	held.Finalizers = nil
	if err := c.Client.Update(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	role := provision.Role{Name: "leaving", Org: "dexorder", Environment: "test"}
	eventually(t, "end of the namespace", func() (bool, error) { return p.namespace(t, name) == nil, nil })
	p.apply(t, p.plan(t, role))
	if _, err := p.Find(t.Context(), "nobody", "", ""); !errors.Is(err, provision.ErrRefused) {
		t.Errorf("no such role: %v", err)
	}
}

// What is deprovisioned stops, can be taken back until the end, and comes to it by the reaper's ordinary way.
func testDeprovision(t *testing.T, c *cluster) {
	p := c.provisioning(t)
	const name = "agent-seller"
	role := provision.Role{Name: "seller", Org: "dexorder", Environment: "test"}
	p.apply(t, p.plan(t, role))
	c.get(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: installation.SystemNamespace, Name: "role.seller.dexorder.test"}})
	cron := &batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "nightly"},
		Spec: batchv1.CronJobSpec{Schedule: "0 0 1 1 *", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{
			Template: corev1.PodTemplateSpec{Spec: cronPod()},
		}}},
	}
	c.create(t, cron)
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "agent"}}
	pods := func() int {
		t.Helper()
		var list corev1.PodList
		if err := c.Client.List(t.Context(), &list, client.InNamespace(name)); err != nil {
			t.Fatal(err)
		}
		return len(list.Items)
	}
	eventually(t, "the agent's Pod", func() (bool, error) { return pods() == 1, nil })
	// Controllers and reapers write whenever they like: here always between the plan and what is done of it.
	meanwhile := 0
	do := func(plan func() (*provision.Stop, error)) {
		t.Helper()
		s, err := plan()
		if err != nil {
			t.Fatal(err)
		}
		meanwhile++
		for _, o := range []client.Object{d, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}} {
			patch := fmt.Sprintf(`{"metadata": {"annotations": {"example.com/meanwhile": "%d"}}}`, meanwhile)
			if err := c.Client.Patch(t.Context(), o, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Do(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	find := func(by string) *corev1.Namespace {
		t.Helper()
		n, err := p.Find(t.Context(), by, "", "")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	stop := func() {
		do(func() (*provision.Stop, error) { return p.PlanStop(t.Context(), find("seller"), "the tester") })
	}
	undo := func() { do(func() (*provision.Stop, error) { return p.PlanUndo(t.Context(), find(name)) }) }
	stopped := func(want bool) {
		t.Helper()
		c.get(t, d)
		c.get(t, cron)
		if (*d.Spec.Replicas == 0) != want || (cron.Spec.Suspend != nil && *cron.Spec.Suspend) != want {
			t.Errorf("stopped is to be %t: %d replicas, suspended %v", want, *d.Spec.Replicas, cron.Spec.Suspend)
		}
		if _, has := d.Annotations[lifecycle.AnnotationReplicasBefore]; has != want {
			t.Errorf("annotations %v", d.Annotations)
		}
	}

	testStoppedMeanwhile(t, p, find, d)

	protected := find(name)
	protected.Annotations = map[string]string{lifecycle.AnnotationDoNotReap: "true"}
	if err := c.Client.Update(t.Context(), protected); err != nil {
		t.Fatal(err)
	}
	if _, err := p.PlanStop(t.Context(), find(name), "me"); !errors.Is(err, provision.ErrRefused) || !strings.Contains(err.Error(), "is protected") {
		t.Fatalf("protected: %v", err)
	}
	delete(protected.Annotations, lifecycle.AnnotationDoNotReap)
	if err := c.Client.Update(t.Context(), protected); err != nil {
		t.Fatal(err)
	}

	stop()
	stopped(true)
	if mark := p.namespace(t, name).Annotations[lifecycle.AnnotationDeprovisioned]; !strings.HasSuffix(mark, " the tester") {
		t.Errorf("mark %q", mark)
	}
	hpa := &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "scaler"},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "agent"}, MaxReplicas: 1,
		},
	}
	c.create(t, hpa)
	if s, err := p.PlanStop(t.Context(), find(name), "me"); err != nil || len(s.Keeps) != 1 ||
		s.Keeps[0] != "HorizontalPodAutoscaler scaler scales Deployment agent: delete it, or what made it" {
		t.Errorf("with an autoscaler: %+v, %v", s, err)
	}
	if err := c.Client.Delete(t.Context(), hpa); err != nil {
		t.Fatal(err)
	}
	stop() // once more is the same
	stopped(true)
	if _, err := p.Plan(t.Context(), p.render(t, role)); !errors.Is(err, provision.ErrRefused) {
		t.Errorf("provision what is deprovisioned: %v", err)
	}
	undo()
	stopped(false)
	eventually(t, "the agent's Pod", func() (bool, error) { return pods() == 1, nil })
	if again := p.plan(t, role); len(again.Changes) > 0 {
		t.Errorf("after it was undone: %s\n%s", changed(again), again.Changes[0].Diff)
	}

	stop()
	eventually(t, "end of the Pod", func() (bool, error) { return pods() == 0, nil })
	r := c.newReaping(t)
	r.once(t)
	r.clock.pass(59 * time.Minute)
	if got := verdict(r.once(t), "Namespace", name); got != "" {
		t.Fatalf("within the hour: %s", got)
	}
	r.clock.pass(2 * time.Minute)
	for _, want := range []string{"ready", "marked"} {
		if got := verdict(r.once(t), "Namespace", name); got != want {
			t.Fatalf("verdict %q, want %q", got, want)
		}
	}
	undo() // at the last moment
	stopped(false)
	// Its new Pod, which no node runs, is too old by the reaper's clock to be healthy, but it is there.
	if got := verdict(r.once(t), "Namespace", name); got != "" && got != "unhealthy" || p.namespace(t, name).Annotations[lifecycle.AnnotationReaping] != "" {
		t.Fatalf("after the mark was taken back: %s", got)
	}
	eventually(t, "the agent's Pod", func() (bool, error) { return pods() == 1, nil })

	stop()
	eventually(t, "end of the Pod", func() (bool, error) { return pods() == 0, nil })
	r.once(t)
	r.clock.pass(61 * time.Minute)
	for _, want := range []string{"ready", "marked"} {
		if got := verdict(r.once(t), "Namespace", name); got != want {
			t.Fatalf("verdict %q, want %q", got, want)
		}
	}
	eventually(t, "end of the namespace", func() (bool, error) {
		if p.namespace(t, name) != nil {
			r.once(t)
		}
		return p.namespace(t, name) == nil, nil
	})
	testTemplatesPruned(t, c, r)
}

// What has changed meanwhile is judged by what it is now, and what has another UID is left alone.
func testStoppedMeanwhile(t *testing.T, p provisioning, find func(string) *corev1.Namespace, d *appsv1.Deployment) {
	t.Helper()
	planned := func() *provision.Stop {
		t.Helper()
		s, err := p.PlanStop(t.Context(), find(d.Namespace), "me")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	annotate := func(annotations string) {
		t.Helper()
		patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata": {"annotations": `+annotations+`}}`))
		if err := p.Client.Patch(t.Context(), find(d.Namespace), patch); err != nil {
			t.Fatal(err)
		}
	}
	s := planned()
	annotate(`{"do-not-reap": "true"}`)
	if err := p.Do(t.Context(), s); !errors.Is(err, provision.ErrRefused) || !strings.Contains(err.Error(), "is protected") {
		t.Errorf("protected meanwhile: %v", err)
	}
	annotate(`{"do-not-reap": null}`)

	s = planned()
	p.get(t, d)
	if err := p.Client.Delete(t.Context(), d, client.PropagationPolicy(metav1.DeletePropagationBackground)); err != nil {
		t.Fatal(err)
	}
	p.apply(t, p.plan(t, provision.Role{Name: "seller", Org: "dexorder", Environment: "test"}))
	if err := p.Do(t.Context(), s); !errors.Is(err, provision.ErrRefused) || !strings.Contains(err.Error(), "Deployment agent has been deleted meanwhile") {
		t.Errorf("another one by now: %v", err)
	}
	p.get(t, d)
	if *d.Spec.Replicas != 1 {
		t.Errorf("another Deployment of the name was scaled to %d", *d.Spec.Replicas)
	}
	annotate(`{"` + lifecycle.AnnotationDeprovisioned + `": null}`)
}

// With a role's last namespace goes the template that provisioning left, and no other.
func testTemplatesPruned(t *testing.T, c *cluster, r *reaping) {
	template := func(name, environment string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: installation.SystemNamespace, Name: name, Labels: map[string]string{
			lifecycle.LabelRoleTemplate: "seller", lifecycle.LabelOrg: "dexorder", lifecycle.LabelEnvironment: environment,
		}}}
	}
	apply := func(o *corev1.ConfigMap) {
		t.Helper()
		o.APIVersion, o.Kind = "v1", "ConfigMap"
		if err := c.Client.Patch(t.Context(), o, client.Apply, client.FieldOwner(provision.FieldManager)); err != nil { //nolint:staticcheck // of a whole object
			t.Fatal(err)
		}
	}
	provisioned, byHand, own := template("role.seller.dexorder.test", "test"), template("role.seller.dexorder.later", "later"), template("sellers", "test")
	c.create(t, byHand)
	apply(own)
	elsewhere := c.roleNamespace(t, "agent-seller-2", func(n *corev1.Namespace) {
		n.Labels[lifecycle.LabelAgentRole], n.Labels[lifecycle.LabelEnvironment] = "seller", "elsewhere"
	})
	used := template("role.seller.dexorder.elsewhere", "elsewhere")
	apply(used)

	r.once(t)
	c.gone(t, provisioned)
	for _, o := range []client.Object{byHand, own, used} {
		c.get(t, o)
	}
	if err := c.Client.Delete(t.Context(), elsewhere); err != nil {
		t.Fatal(err)
	}
	eventually(t, "end of the other namespace", func() (bool, error) { return c.namespace(t, elsewhere.Name) == nil, nil })
	r.policy.Reaper.Namespaces.Mode = "DryRun"
	r.once(t)
	c.get(t, used)
	r.policy.Reaper.Namespaces.Mode = "Delete"
	r.once(t)
	c.gone(t, used)
}

func cronPod() corev1.PodSpec {
	spec := restrictedPod()
	spec.RestartPolicy = corev1.RestartPolicyNever
	return spec
}

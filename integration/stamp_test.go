package integration

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// roleAgents is a role agent's namespace.
const roleAgents = "agent-ceo"

// TestStamps shows which of what is created in a role agent's namespace says who made it.
func TestStamps(t *testing.T) {
	t.Parallel()
	c := install(t, controlplane.Options{ControllerManager: true})
	r := c.roleAgent(t)
	t.Run("an agent's", func(t *testing.T) { testStamped(t, r) })
	t.Run("an agent's, forged", func(t *testing.T) { testForgedStamp(t, r) })
	t.Run("an agent's, applied", func(t *testing.T) { testAppliedStamp(t, r) })
	t.Run("anybody's", func(t *testing.T) { testUnstamped(t, r) })
	t.Run("updates", func(t *testing.T) { testUpdatesAreNotStamped(t, r) })
	t.Run("user agents", func(t *testing.T) { testUserAgentsAreNotStamped(t, c) })
	t.Run("server away", func(t *testing.T) { testStampServerAway(t, r) })
}

// roleAgent is a role agent with a Pod, as far as the API server knows.
type roleAgent struct {
	*cluster
	pod *corev1.Pod

	// own is what the agent reaches with its Pod's token and the rights of its account.
	own client.Client
}

// roleAgent creates a namespace with an account, what the account may do there, and an agent, and waits for its Pod.
func (c *cluster) roleAgent(t *testing.T) *roleAgent {
	t.Helper()
	meta := metav1.ObjectMeta{Namespace: roleAgents, Name: "ceo"}
	c.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: roleAgents, Labels: map[string]string{"agent-role": "ceo", "org": "dexorder"}}})
	c.create(t, &corev1.ServiceAccount{ObjectMeta: meta})
	c.create(t, &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"configmaps", "secrets"}, Verbs: []string{"create", "get", "update", "patch"}},
		{APIGroups: []string{"batch"}, Resources: []string{"jobs"}, Verbs: []string{"create"}},
	}})
	c.create(t, &rbacv1.RoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "ceo"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: roleAgents, Name: "ceo"}},
	})
	c.create(t, agent("ceo", func(d *appsv1.Deployment) { d.Namespace = roleAgents },
		pod(func(p *corev1.PodSpec) { p.ServiceAccountName = "ceo" })))
	var pods corev1.PodList
	eventually(t, "Pod of ceo", func() (bool, error) {
		err := c.Client.List(t.Context(), &pods, client.InNamespace(roleAgents))
		return len(pods.Items) == 1, err
	})
	r := &roleAgent{cluster: c, pod: &pods.Items[0]}
	r.own = clientOf(t, c.tokenOf(t, roleAgents, "ceo", &authenticationv1.BoundObjectReference{
		Kind: "Pod", APIVersion: "v1", Name: r.pod.Name, UID: r.pod.UID,
	}))
	return r
}

func clientOf(t *testing.T, config *rest.Config) client.Client {
	t.Helper()
	user, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return user
}

// makes lists one object of each kind that is stamped.
func makes(name string) []client.Object {
	meta := metav1.ObjectMeta{Namespace: roleAgents, Name: name, Labels: map[string]string{"team": "blue"}}
	template := agent(name).Spec.Template
	template.Spec.RestartPolicy = corev1.RestartPolicyNever
	template.Spec.SecurityContext = &corev1.PodSecurityContext{
		RunAsNonRoot: ptr(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	template.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{
		RunAsUser: ptr[int64](1000), AllowPrivilegeEscalation: ptr(false), ReadOnlyRootFilesystem: ptr(true),
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
	return []client.Object{
		&corev1.ConfigMap{ObjectMeta: *meta.DeepCopy(), Data: map[string]string{"a": "b"}},
		&corev1.Secret{ObjectMeta: *meta.DeepCopy(), StringData: map[string]string{"a": "b"}},
		&batchv1.Job{ObjectMeta: *meta.DeepCopy(), Spec: batchv1.JobSpec{Suspend: ptr(true), Template: template}},
	}
}

func configMap(namespace, name string, changes ...func(*metav1.ObjectMeta)) *corev1.ConfigMap {
	o := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	for _, change := range changes {
		change(&o.ObjectMeta)
	}
	return o
}

// stampedBy writes a stamp as an agent's Pod gets it.
func stampedBy(name, uid string) func(*metav1.ObjectMeta) {
	return func(o *metav1.ObjectMeta) {
		metav1.SetMetaDataLabel(o, lifecycle.LabelCreatedByPodUID, uid)
		metav1.SetMetaDataAnnotation(o, lifecycle.AnnotationCreatedByPod, name)
	}
}

// hasStamp fails the test unless an object, as it is stored, carries just that stamp; none if name and uid are empty.
func (r *roleAgent) hasStamp(t *testing.T, o client.Object, name, uid string) {
	t.Helper()
	r.get(t, o)
	gotUID, hasUID := o.GetLabels()[lifecycle.LabelCreatedByPodUID]
	gotName, hasName := o.GetAnnotations()[lifecycle.AnnotationCreatedByPod]
	if gotUID != uid || gotName != name || hasUID != (uid != "") || hasName != (name != "") {
		t.Errorf("%T %s: labels %v, annotations %v; want a stamp of Pod %q, %q%s",
			o, o.GetName(), o.GetLabels(), o.GetAnnotations(), name, uid, r.Logs())
	}
}

func testStamped(t *testing.T, r *roleAgent) {
	for _, o := range makes("made") {
		if err := r.own.Create(t.Context(), o); err != nil {
			t.Fatalf("%T: %v", o, err)
		}
		r.hasStamp(t, o, r.pod.Name, string(r.pod.UID))
		if o.GetLabels()["team"] != "blue" {
			t.Errorf("%T: labels %v lack the agent's own", o, o.GetLabels())
		}
	}
	var found corev1.ConfigMapList
	if err := r.Client.List(t.Context(), &found, client.InNamespace(roleAgents), client.HasLabels{lifecycle.LabelCreatedByPodUID}); err != nil {
		t.Fatal(err)
	}
	if len(found.Items) != 1 || found.Items[0].Name != "made" {
		t.Errorf("stamped ConfigMaps are %d, want the agent's alone: what the cluster makes there is nobody's leftover", len(found.Items))
	}
}

func testForgedStamp(t *testing.T, r *roleAgent) {
	o := configMap(roleAgents, "forged", stampedBy("somebody-else", "f0000000-0000-0000-0000-000000000000"))
	if err := r.own.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	r.hasStamp(t, o, r.pod.Name, string(r.pod.UID))
}

// A server-side apply creates the first time. It does not own the stamp, so the second one leaves it.
func testAppliedStamp(t *testing.T, r *roleAgent) {
	for _, value := range []string{"one", "two"} {
		o := corev1apply.ConfigMap("applied", roleAgents).WithData(map[string]string{"value": value})
		if err := r.own.Apply(t.Context(), o, client.FieldOwner("agent"), client.ForceOwnership); err != nil {
			t.Fatal(err)
		}
		r.hasStamp(t, configMap(roleAgents, "applied"), r.pod.Name, string(r.pod.UID))
	}
}

func testUnstamped(t *testing.T, r *roleAgent) {
	copied := stampedBy(r.pod.Name, string(r.pod.UID))
	operator := controlplane.ServiceAccount("cert-manager", "cert-manager")
	operator.Groups = append(operator.Groups, "system:masters")
	operator.Extra = map[string][]string{lifecycle.ExtraPodName: {"cert-manager-0"}, lifecycle.ExtraPodUID: {"uid"}}
	unbound := clientOf(t, r.tokenOf(t, roleAgents, "ceo", nil))
	for name, user := range map[string]client.Client{
		"administrator": r.Client, "operator": clientOf(t, r.plane.Impersonate(operator)), "account-without-a-pod": unbound,
	} {
		for _, o := range []*corev1.ConfigMap{configMap(roleAgents, name), configMap(roleAgents, name+"-copy", copied)} {
			if err := user.Create(t.Context(), o); err != nil {
				t.Fatalf("%s: %v", o.Name, err)
			}
			r.hasStamp(t, o, "", "")
		}
	}
	// A CronJob whose Jobs are to carry a stamp.
	for _, o := range makes("of-cronjob") {
		if job, ok := o.(*batchv1.Job); ok {
			copied(&job.ObjectMeta)
			if err := r.as(t, "cronjob-controller").Create(t.Context(), job); err != nil {
				t.Fatal(err)
			}
			r.hasStamp(t, job, "", "")
		}
	}
}

func testUpdatesAreNotStamped(t *testing.T, r *roleAgent) {
	before := r.stampsAsked(t)
	if err := r.own.Create(t.Context(), configMap(roleAgents, "counted")); err != nil {
		t.Fatal(err)
	}
	o := configMap(roleAgents, "updated")
	r.create(t, o)
	asked := r.stampsAsked(t)
	if asked != before+1 {
		t.Errorf("of two creations, one of them an administrator's, the server was asked %d times", asked-before)
	}
	o.Data = map[string]string{"by": "the agent"}
	if err := r.own.Update(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	r.hasStamp(t, o, "", "")
	stampedBy("a", "b")(&o.ObjectMeta)
	if err := r.Client.Update(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	r.hasStamp(t, o, "a", "b")
	if now := r.stampsAsked(t); now != asked {
		t.Errorf("the server was asked %d times more", now-asked)
	}
}

func testUserAgentsAreNotStamped(t *testing.T, c *cluster) {
	l := c.live(t, "user")
	asked := c.stampsAsked(t)
	o := configMap(agents, "user-made")
	if err := clientOf(t, c.judged("agent-lifecycle", l.pod, string(l.pod.UID))).Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	(&roleAgent{cluster: c}).hasStamp(t, o, "", "")
	if now := c.stampsAsked(t); now != asked {
		t.Errorf("the server was asked %d times", now-asked)
	}
}

// Nothing waits for a stamp.
func testStampServerAway(t *testing.T, r *roleAgent) {
	for _, s := range r.Servers() {
		if err := r.RemoveServer(s); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range makes("while-away") {
		err := r.own.Create(t.Context(), o)
		if _, ok := o.(*batchv1.Job); ok {
			if err == nil || !strings.Contains(err.Error(), `failed calling webhook "validate.lifecycle.dexorder.io"`) {
				t.Errorf("a Job that nobody judged: %v", err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%T: %v", o, err)
			continue
		}
		r.hasStamp(t, o, "", "")
	}
}

var stampsCounted = regexp.MustCompile(`(?m)^agent_lifecycle_admission_duration_seconds_count\{kind="\w*",path="stamp"\} (\d+)$`)

// stampsAsked is how often the server has been asked for a stamp.
func (c *cluster) stampsAsked(t *testing.T) int {
	t.Helper()
	body, err := c.metrics()
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, found := range stampsCounted.FindAllStringSubmatch(body, -1) {
		n, err := strconv.Atoi(found[1])
		if err != nil {
			t.Fatal(fmt.Errorf("metrics: %w", err))
		}
		total += n
	}
	return total
}

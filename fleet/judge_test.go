package fleet

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	psaapi "k8s.io/pod-security-admission/api"
	"sigs.k8s.io/yaml"

	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/workload"
)

const namespace = "dexorder-agents"

func judgeBy(t *testing.T, replace ...string) *Judge {
	t.Helper()
	file := strings.NewReplacer(replace...).Replace(string(v1alpha1.Example()))
	j, err := NewJudge([]byte(file), true)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func plain(image string, changes ...func(*appsv1.Deployment)) *appsv1.Deployment {
	quantities := corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("128Mi")}
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "alice", UID: "u"},
		Spec: appsv1.DeploymentSpec{
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "alice"}},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{
					Name: "agent", Image: image, Resources: corev1.ResourceRequirements{Limits: quantities, Requests: quantities},
				}}},
			},
		},
	}
	for _, change := range changes {
		change(d)
	}
	return d
}

func rules(violations []policy.Violation) string {
	var ids []string
	for _, v := range violations {
		ids = append(ids, v.Rule)
	}
	return strings.Join(ids, " ")
}

const good, bad = "ghcr.io/dexorder/agent:v1", "docker.io/library/nginx:1"

func TestJudge(t *testing.T) {
	restricted := map[string]string{psaapi.EnforceLevelLabel: "restricted", psaapi.EnforceVersionLabel: "v1.36"}
	today := judgeBy(t)
	adopted, _ := today.Renewed(namespace, plain(good))
	for _, tc := range []struct {
		name         string
		judge        *Judge
		labels       map[string]string
		d            *appsv1.Deployment
		change, next string
		sidecar      Sidecar
	}{
		{"admitted with today's parts", today, restricted, adopted, "", "", SidecarCurrent},
		{"from before, in order", today, nil, plain(good), "", "", SidecarMissing},
		{"from before, its namespace is restricted", today, restricted, plain(good), "",
			strings.TrimSpace(strings.Repeat(PodSecurityAdmission+" ", 4)), SidecarMissing},
		{"from before, its namespace has a level that nobody knows", today, map[string]string{psaapi.EnforceLevelLabel: "high"}, plain(good), "",
			strings.TrimSpace(strings.Repeat(PodSecurityAdmission+" ", 4)), SidecarMissing},
		{"from before, another image", today, nil, plain(bad), "image-allowlist", "", SidecarMissing},
		{"from before, nothing is tolerated", judgeBy(t, "adoption: warn", "adoption: enforce"), nil, plain(bad), "image-allowlist",
			"identity image-allowlist pod-security pod-security pod-security pod-security read-only-rootfs service-account service-account sidecar-integrity sidecar-integrity sidecar-integrity sidecar-integrity service-links", SidecarMissing},
		{"its sidecar is older", judgeBy(t, "image: ghcr.io/dexorder/lifecycle-sidecar:v0.1.0", "image: ghcr.io/dexorder/lifecycle-sidecar:v0.2.0"), restricted, adopted,
			"", "", SidecarOutdated},
		{"sidecars are no more", judgeBy(t, "mode: Inject", "mode: None"), restricted, adopted, "", "", SidecarOutdated},
		{"another's claim", today, nil, plain(good, func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"},
			}}}
		}), "volumes", "", SidecarMissing},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := tc.d.DeepCopy()
			o := workload.FromDeployment(tc.d)
			facts := map[string]policy.Claim{"data": {Exists: true, Deployment: "bob"}}
			if got := rules(tc.judge.Change(namespace, o, facts).Denials); got != tc.change {
				t.Errorf("its change is refused by %q, want %q", got, tc.change)
			}
			if got := rules(tc.judge.Return(namespace, tc.labels, o, tc.d, chainOf("Deployment"), facts).Denials); got != tc.next {
				t.Errorf("its Pod is refused by %q, want %q", got, tc.next)
			}
			if got, _ := tc.judge.SidecarOf(namespace, tc.d); got != tc.sidecar {
				t.Errorf("its sidecar is %s, want %s", got, tc.sidecar)
			}
			if diff := cmp.Diff(before, tc.d); diff != "" {
				t.Errorf("it was changed:\n%s", diff)
			}
		})
	}
}

func TestNeedsClaims(t *testing.T) {
	j := judgeBy(t)
	for namespace, want := range map[string]bool{"dexorder-agents": true, "agent-ceo": false, "default": false} {
		if got := j.NeedsClaims(namespace); got != want {
			t.Errorf("%s: %t, want %t", namespace, got, want)
		}
	}
}

func TestNewJudgeSaysWhatIsWrong(t *testing.T) {
	if _, err := NewJudge([]byte("kind: LifecyclePolicy\n"), true); err == nil || !strings.Contains(err.Error(), "sidecar.image") {
		t.Errorf("error %v does not name what is missing", err)
	}
}

func TestChanges(t *testing.T) {
	j := judgeBy(t)
	from := plain(good)
	adopted, _ := j.Renewed(namespace, from)
	want := []string{
		"sidecar ghcr.io/dexorder/lifecycle-sidecar:v0.1.0 is added",
		"strategy RollingUpdate becomes Recreate",
		`label lifecycle.dexorder.io/deployment: "" becomes "alice"`,
		`label lifecycle.dexorder.io/user-type: "" becomes "free"`,
		`service account "" becomes "agent-lifecycle"`,
		"the account's token is mounted: unset becomes false",
		"the containers see one another's processes: unset becomes true",
		"the environment tells of the namespace's Services: unset becomes false",
		"container agent: readOnlyRootFilesystem=true, runAsUser=1000, runAsNonRoot=true, allowPrivilegeEscalation=false, " +
			"capabilities.drop=[ALL], seccompProfile=RuntimeDefault where it does not say",
		"container agent: the environment says when it is idle",
		"container agent: /var/run/agent is mounted",
		"container agent: it is started again after every exit code but 42",
		"volumes are added: lifecycle-run, lifecycle-token",
	}
	if diff := cmp.Diff(want, Changes(from, adopted)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	next := judgeBy(t, "image: ghcr.io/dexorder/lifecycle-sidecar:v0.1.0", "image: ghcr.io/dexorder/lifecycle-sidecar:v0.2.0")
	upgraded, changes := next.Renewed(namespace, adopted)
	want = []string{"sidecar ghcr.io/dexorder/lifecycle-sidecar:v0.1.0 becomes ghcr.io/dexorder/lifecycle-sidecar:v0.2.0"}
	if diff := cmp.Diff(want, Changes(adopted, upgraded)); diff != "" || !changes || sameTemplate(adopted, upgraded) {
		t.Errorf("upgrade (changes %t): -want +got\n%s", changes, diff)
	}
	again, changes := next.Renewed(namespace, upgraded)
	if got := Changes(upgraded, again); got != nil || changes || !sameTemplate(upgraded, again) {
		t.Errorf("again: %q, %t", got, changes)
	}
	without, _ := judgeBy(t, "mode: Inject", "mode: None").Renewed(namespace, adopted)
	want = []string{
		"sidecar ghcr.io/dexorder/lifecycle-sidecar:v0.1.0 is taken out",
		"container agent: it is started again after every exit code",
		"volumes are taken out: lifecycle-token",
	}
	if diff := cmp.Diff(want, Changes(adopted, without)); diff != "" {
		t.Errorf("without: -want +got\n%s", diff)
	}
}

// TestInstalledPodSecurity: what an audit expects of the manifests is what they say.
func TestInstalledPodSecurity(t *testing.T) {
	data, err := os.ReadFile("../manifests/base/namespaces.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]map[string]string{}
	for _, document := range bytes.Split(data, []byte("\n---\n")) {
		var n corev1.Namespace
		if err := yaml.Unmarshal(document, &n); err != nil {
			t.Fatal(err)
		}
		enforced := map[string]string{}
		for key, value := range n.Labels {
			if strings.HasPrefix(key, psaapi.EnforceLevelLabel) { // and its version
				enforced[key] = value
			}
		}
		if judgeBy(t).Covers(n.Name) {
			got[n.Name] = enforced
		}
	}
	if diff := cmp.Diff(got, InstalledPodSecurity()); diff != "" {
		t.Errorf("-manifests +audit\n%s", diff)
	}
}

func TestCompare(t *testing.T) {
	image, claim := policy.Violation{Rule: "image-allowlist", Field: "a"}, policy.Violation{Rule: "volumes", Field: "b"}
	other := image
	other.Message = "allowed are others"
	for _, tc := range []struct {
		name       string
		now, today Report
		want       []News
	}{
		{"the same", Report{Refused: []policy.Violation{other}}, Report{Refused: []policy.Violation{image}}, nil},
		{"refused", Report{Refused: []policy.Violation{image}}, Report{}, []News{NewlyRefused}},
		{"refused where it was warned", Report{Refused: []policy.Violation{image}}, Report{Warned: []policy.Violation{image}}, []News{NewlyRefused}},
		{"refused for more", Report{Refused: []policy.Violation{image, claim}}, Report{Refused: []policy.Violation{image}}, []News{RefusedMore}},
		{"refused for less", Report{Refused: []policy.Violation{image}}, Report{Refused: []policy.Violation{image, claim}}, nil},
		{"accepted", Report{}, Report{Refused: []policy.Violation{image}}, []News{NewlyAccepted}},
		{"warned", Report{Warned: []policy.Violation{image}}, Report{}, []News{NewlyWarned}},
		{"warned where it was refused", Report{Warned: []policy.Violation{image}}, Report{Refused: []policy.Violation{image}}, []News{NewlyAccepted}},
		{"stuck", Report{Stuck: []policy.Violation{image}}, Report{}, []News{NewlyStuck}},
		{"free", Report{}, Report{Stuck: []policy.Violation{image}}, []News{NewlyFree}},
		{"outdated", Report{Adopted: true, Sidecar: SidecarOutdated}, Report{Adopted: true, Sidecar: SidecarCurrent}, []News{NewlyOutdated}},
		{"outdated before", Report{Adopted: true, Sidecar: SidecarOutdated}, Report{Adopted: true, Sidecar: SidecarOutdated}, nil},
	} {
		tc.now.compare(&tc.today)
		if !slices.Equal(tc.now.News, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, tc.now.News, tc.want)
		}
	}
}

func TestSummaryRefuses(t *testing.T) {
	for _, tc := range []struct {
		s               Summary
		today, previews bool
	}{
		{Summary{}, false, false},
		{Summary{Refused: 1}, true, false},
		{Summary{Stuck: 1}, true, false},
		{Summary{Refused: 1, NewlyRefused: 1}, true, true},
		{Summary{Refused: 1, RefusedMore: 1}, true, true},
		{Summary{Stuck: 1, NewlyStuck: 1}, true, true},
		{Summary{Warned: 1, NewlyWarned: 1, NewlyOutdated: 1}, false, false},
	} {
		if tc.s.Refuses(Basis{}) != tc.today || tc.s.Refuses(Basis{Preview: true}) != tc.previews {
			t.Errorf("%+v: %t, in a preview %t", tc.s, tc.s.Refuses(Basis{}), tc.s.Refuses(Basis{Preview: true}))
		}
	}
}

func TestIsAudited(t *testing.T) {
	for apiVersion, want := range map[string]bool{"apps/v1": true, "extensions/v1beta1": false, "apps.example.com/v1": false, "a/b/c": false} {
		if got := isAudited(&metav1.OwnerReference{APIVersion: apiVersion, Kind: "ReplicaSet"}); got != want {
			t.Errorf("%s: %t", apiVersion, got)
		}
	}
	if isAudited(nil) || isAudited(&metav1.OwnerReference{APIVersion: "argoproj.io/v1alpha1", Kind: "Workflow"}) {
		t.Error("what nobody looks at counts as looked at")
	}
}

package manifests

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
)

// What an agent's sidecar may do, in full.
var rightsOfAgents = []string{"dexorder-agents: delete apps/deployments"}

// What the gateway may do, in full. It deletes and patches nothing, and reads neither Secret nor ConfigMap.
var rightsOfGateway = []string{
	"cluster: create authentication.k8s.io/tokenreviews",
	"dexorder-agents: create apps/deployments", "dexorder-agents: get apps/deployments", "dexorder-agents: list apps/deployments",
	"dexorder-agents: update apps/deployments", "dexorder-agents: watch apps/deployments",
	"dexorder-agents: create persistentvolumeclaims", "dexorder-agents: get persistentvolumeclaims",
	"dexorder-agents: list persistentvolumeclaims", "dexorder-agents: update persistentvolumeclaims",
	"dexorder-agents: watch persistentvolumeclaims",
	"dexorder-agents: create services", "dexorder-agents: get services", "dexorder-agents: list services",
	"dexorder-agents: update services", "dexorder-agents: watch services",
	"dexorder-agents: get pods", "dexorder-agents: list pods", "dexorder-agents: watch pods",
	"dexorder-agents: update apps/deployments/finalizers",
}

// What the server may do, in full. A right more is a decision to take here.
var (
	rightsToFacts = []string{
		"cluster: create events",
		"cluster: get apps/daemonsets",
		"cluster: get apps/deployments",
		"cluster: get apps/replicasets",
		"cluster: get apps/statefulsets",
		"cluster: get batch/cronjobs",
		"cluster: get batch/jobs",
		"cluster: get persistentvolumeclaims",
		"cluster: get pods",
		"cluster: get replicationcontrollers",
		"cluster: list apps/deployments",
		"cluster: list apps/replicasets",
		"cluster: list batch/jobs",
		"cluster: list persistentvolumeclaims",
		"cluster: watch apps/deployments",
		"cluster: watch apps/replicasets",
		"cluster: watch batch/jobs",
		"cluster: watch persistentvolumeclaims",
		"cluster: watch pods",
	}
	rightsToBreaker = []string{
		"dexorder-system: get configmaps named lifecycle-breaker",
		"dexorder-system: list configmaps named lifecycle-breaker",
		"dexorder-system: watch configmaps named lifecycle-breaker",
		"dexorder-system: update configmaps named lifecycle-breaker",
	}
	rightsToRules = []string{
		"dexorder-system: get configmaps named lifecycle-rules",
		"dexorder-system: update configmaps named lifecycle-rules",
	}
	// The Secret is made once, and told agents of.
	rightsToKeys = []string{
		"dexorder-system: create secrets",
		"dexorder-system: get secrets named lifecycle-keys",
	}
	rightsToReap = []string{
		"cluster: create events", "cluster: patch events",
		"cluster: get apps/daemonsets", "cluster: list apps/daemonsets", "cluster: watch apps/daemonsets",
		"cluster: get apps/deployments", "cluster: list apps/deployments", "cluster: watch apps/deployments",
		"cluster: get apps/replicasets", "cluster: list apps/replicasets", "cluster: watch apps/replicasets",
		"cluster: get apps/statefulsets", "cluster: list apps/statefulsets", "cluster: watch apps/statefulsets",
		"cluster: get autoscaling/horizontalpodautoscalers", "cluster: list autoscaling/horizontalpodautoscalers",
		"cluster: watch autoscaling/horizontalpodautoscalers",
		"cluster: get batch/cronjobs", "cluster: list batch/cronjobs", "cluster: watch batch/cronjobs",
		"cluster: get batch/jobs", "cluster: list batch/jobs", "cluster: watch batch/jobs",
		"cluster: get namespaces", "cluster: list namespaces", "cluster: watch namespaces",
		"cluster: get persistentvolumeclaims", "cluster: list persistentvolumeclaims", "cluster: watch persistentvolumeclaims",
		"cluster: get persistentvolumes", "cluster: list persistentvolumes", "cluster: watch persistentvolumes",
		"cluster: get pods", "cluster: list pods", "cluster: watch pods",
		"cluster: get replicationcontrollers", "cluster: list replicationcontrollers", "cluster: watch replicationcontrollers",
		"cluster: get services", "cluster: list services", "cluster: watch services",
		// What of the cluster may refer to a ConfigMap or a Secret.
		"cluster: list admissionregistration.k8s.io/mutatingadmissionpolicybindings",
		"cluster: list admissionregistration.k8s.io/mutatingwebhookconfigurations",
		"cluster: list admissionregistration.k8s.io/validatingadmissionpolicybindings",
		"cluster: list admissionregistration.k8s.io/validatingwebhookconfigurations",
		"cluster: list apiextensions.k8s.io/customresourcedefinitions",
		"cluster: list apiregistration.k8s.io/apiservices",
		"cluster: list networking.k8s.io/ingressclasses",
		"cluster: list storage.k8s.io/storageclasses",
		// Which namespaces and volumes is confined by the admission policy agent-reaper-writes.
		"cluster: delete namespaces", "cluster: patch namespaces",
		"cluster: patch persistentvolumes",
		"dexorder-agents: delete apps/deployments",
		"dexorder-agents: delete persistentvolumeclaims",
		"dexorder-agents: delete pods",
		"dexorder-agents: patch persistentvolumeclaims",
		"dexorder-agents: patch services",
		"dexorder-agents: update apps/deployments/finalizers",
		"dexorder-system: create coordination.k8s.io/leases",
		"dexorder-system: get coordination.k8s.io/leases named lifecycle-reaper",
		"dexorder-system: update coordination.k8s.io/leases named lifecycle-reaper",
		"dexorder-system: create configmaps", "dexorder-system: get configmaps",
		"dexorder-system: list configmaps", "dexorder-system: delete configmaps",
	}
	rightsToArchivedSecrets = []string{
		"dexorder-system: create secrets", "dexorder-system: get secrets",
		"dexorder-system: list secrets", "dexorder-system: delete secrets",
	}
	rightsInRoleNamespace = []string{
		"agent-marketing: delete apps/daemonsets",
		"agent-marketing: delete apps/deployments",
		"agent-marketing: delete apps/replicasets",
		"agent-marketing: delete apps/statefulsets",
		"agent-marketing: delete batch/cronjobs",
		"agent-marketing: delete batch/jobs",
		"agent-marketing: delete configmaps",
		"agent-marketing: delete persistentvolumeclaims",
		"agent-marketing: delete pods",
		"agent-marketing: delete replicationcontrollers",
		"agent-marketing: delete secrets",
		"agent-marketing: get configmaps",
		"agent-marketing: get limitranges",
		"agent-marketing: get networking.k8s.io/networkpolicies",
		"agent-marketing: get rbac.authorization.k8s.io/rolebindings",
		"agent-marketing: get rbac.authorization.k8s.io/roles",
		"agent-marketing: get resourcequotas",
		"agent-marketing: get secrets",
		"agent-marketing: get serviceaccounts",
		// What refers to a ConfigMap or Secret may be of any kind.
		"agent-marketing: list */*",
		"agent-marketing: list configmaps",
		"agent-marketing: list limitranges",
		"agent-marketing: list networking.k8s.io/networkpolicies",
		"agent-marketing: list rbac.authorization.k8s.io/rolebindings",
		"agent-marketing: list rbac.authorization.k8s.io/roles",
		"agent-marketing: list resourcequotas",
		"agent-marketing: list secrets",
		"agent-marketing: list serviceaccounts",
		"agent-marketing: patch batch/jobs",
		"agent-marketing: patch configmaps",
		"agent-marketing: patch persistentvolumeclaims",
		"agent-marketing: patch secrets",
		"agent-marketing: patch services",
		"agent-marketing: update apps/deployments/finalizers",
	}
	rightsToReadRegistrations = []string{
		"cluster: get admissionregistration.k8s.io/mutatingwebhookconfigurations named agent-lifecycle",
		"cluster: get admissionregistration.k8s.io/validatingwebhookconfigurations named agent-lifecycle",
		"cluster: list admissionregistration.k8s.io/mutatingwebhookconfigurations named agent-lifecycle",
		"cluster: list admissionregistration.k8s.io/validatingwebhookconfigurations named agent-lifecycle",
		"cluster: watch admissionregistration.k8s.io/mutatingwebhookconfigurations named agent-lifecycle",
		"cluster: watch admissionregistration.k8s.io/validatingwebhookconfigurations named agent-lifecycle",
	}
	// Creating by apply alone, which RBAC binds to the name.
	rightsToKeep = []string{
		"cluster: get admissionregistration.k8s.io/validatingadmissionpolicies named agent-namespace-kept",
		"cluster: get admissionregistration.k8s.io/validatingadmissionpolicybindings named agent-namespace-kept",
		"cluster: create admissionregistration.k8s.io/validatingadmissionpolicies named agent-namespace-kept-after-removal",
		"cluster: create admissionregistration.k8s.io/validatingadmissionpolicybindings named agent-namespace-kept-after-removal",
		"cluster: patch admissionregistration.k8s.io/validatingadmissionpolicies named agent-namespace-kept-after-removal",
		"cluster: patch admissionregistration.k8s.io/validatingadmissionpolicybindings named agent-namespace-kept-after-removal",
	}
	rightsToKeepCertificates = []string{
		"cluster: patch admissionregistration.k8s.io/mutatingwebhookconfigurations named agent-lifecycle",
		"cluster: patch admissionregistration.k8s.io/validatingwebhookconfigurations named agent-lifecycle",
		"dexorder-system: create secrets",
		"dexorder-system: get secrets named lifecycle-webhook-ca",
		"dexorder-system: list secrets named lifecycle-webhook-ca",
		"dexorder-system: update secrets named lifecycle-webhook-ca",
		"dexorder-system: watch secrets named lifecycle-webhook-ca",
	}
)

func TestRights(t *testing.T) {
	forEachInstallation(t, func(t *testing.T, in installed) {
		server := slices.Concat(rightsToFacts, rightsToBreaker, rightsToRules, rightsToReadRegistrations, rightsToKeep, rightsToKeys)
		if in.name != withCertManager {
			server = append(server, rightsToKeepCertificates...)
		}
		reaper := slices.Clone(rightsToReap)
		if in.name == withSecrets || in.name == withEmbeddedSecrets {
			reaper = append(reaper, rightsToArchivedSecrets...)
		}
		want := map[string][]string{
			"ServiceAccount dexorder-agents/agent-lifecycle": rightsOfAgents,
			"ServiceAccount dexorder-system/gateway":         sorted(rightsOfGateway),
		}
		account := "ServiceAccount dexorder-system/" + in.deployment.Spec.Template.Spec.ServiceAccountName
		if in.ownReaper() {
			want[account] = sorted(server)
			want["ServiceAccount dexorder-system/lifecycle-reaper"] = sorted(reaper, rightsToBreaker)
		} else {
			want[account] = sorted(server, reaper)
		}

		got := map[string][]string{}
		for _, binding := range ofKind[rbacv1.ClusterRoleBinding](t, in.objects, "ClusterRoleBinding") {
			role := as[rbacv1.ClusterRole](t, one(t, in.objects, binding.RoleRef.Kind, binding.RoleRef.Name))
			grant(got, "cluster", binding.Subjects, role.Rules)
		}
		for _, binding := range ofKind[rbacv1.RoleBinding](t, in.objects, "RoleBinding") {
			role := as[rbacv1.Role](t, one(t, in.objects, binding.RoleRef.Kind, binding.RoleRef.Name))
			grant(got, binding.Namespace, binding.Subjects, role.Rules)
		}
		for subject, rights := range got {
			got[subject] = sorted(rights) // two roles may grant the same
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("rights by subject (-want +got):\n%s", diff)
		}
	})
}

// What the reaper may do in the namespace of a role agent is for the namespace to bind: the example does, to the server's account.
func TestRightsInRoleNamespace(t *testing.T) {
	objects := render(t, "overlays/prod")
	got := map[string][]string{}
	for _, binding := range ofKind[rbacv1.RoleBinding](t, readFile(t, example), "RoleBinding") {
		role := as[rbacv1.ClusterRole](t, one(t, objects, binding.RoleRef.Kind, binding.RoleRef.Name))
		grant(got, binding.Namespace, binding.Subjects, role.Rules)
	}
	for subject, rights := range got {
		got[subject] = sorted(rights)
	}
	want := map[string][]string{"ServiceAccount dexorder-system/lifecycle-webhook": rightsInRoleNamespace}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rights by subject (-want +got):\n%s", diff)
	}
}

// Who may open the breaker by hand can release it, too, and can do nothing else. The installation binds nobody to that.
func TestRightsOfBreakerOperators(t *testing.T) {
	role := as[rbacv1.Role](t, one(t, render(t, "overlays/prod"), "Role", "lifecycle-breaker-operator"))
	got := map[string][]string{}
	grant(got, role.Namespace, []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: "alice"}}, role.Rules)
	want := map[string][]string{"User /alice": {
		"dexorder-system: get configmaps named lifecycle-breaker", "dexorder-system: update configmaps named lifecycle-breaker",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rights (-want +got):\n%s", diff)
	}
}

// sorted is all rights, each of them once.
func sorted(rights ...[]string) []string {
	all := slices.Concat(rights...)
	slices.Sort(all)
	return slices.Compact(all)
}

// grant adds what rules allow to each subject, one line a right.
func grant(rights map[string][]string, scope string, subjects []rbacv1.Subject, rules []rbacv1.PolicyRule) {
	var lines []string
	for _, rule := range rules {
		for _, verb := range rule.Verbs {
			for _, url := range rule.NonResourceURLs {
				lines = append(lines, fmt.Sprintf("%s: %s %s", scope, verb, url))
			}
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					line := fmt.Sprintf("%s: %s %s", scope, verb, strings.TrimPrefix(group+"/"+resource, "/"))
					if len(rule.ResourceNames) > 0 {
						line += " named " + strings.Join(rule.ResourceNames, ",")
					}
					lines = append(lines, line)
				}
			}
		}
	}
	for _, s := range subjects {
		name := fmt.Sprintf("%s %s/%s", s.Kind, s.Namespace, s.Name)
		rights[name] = append(rights[name], lines...)
	}
}

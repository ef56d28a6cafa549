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
		"dexorder-system: update configmaps named lifecycle-breaker",
	}
	rightsToReap = []string{
		"cluster: get apps/deployments", "cluster: list apps/deployments", "cluster: watch apps/deployments",
		"cluster: get persistentvolumeclaims", "cluster: list persistentvolumeclaims", "cluster: watch persistentvolumeclaims",
		"cluster: get pods", "cluster: list pods", "cluster: watch pods",
		"cluster: get services", "cluster: list services", "cluster: watch services",
		"dexorder-agents: delete pods",
		"dexorder-agents: patch persistentvolumeclaims",
		"dexorder-agents: patch services",
		"dexorder-agents: update apps/deployments/finalizers",
		"dexorder-system: create coordination.k8s.io/leases",
		"dexorder-system: get coordination.k8s.io/leases named lifecycle-reaper",
		"dexorder-system: update coordination.k8s.io/leases named lifecycle-reaper",
	}
	rightsToReadRegistrations = []string{
		"cluster: get admissionregistration.k8s.io/mutatingwebhookconfigurations named agent-lifecycle",
		"cluster: get admissionregistration.k8s.io/validatingwebhookconfigurations named agent-lifecycle",
		"cluster: list admissionregistration.k8s.io/mutatingwebhookconfigurations named agent-lifecycle",
		"cluster: list admissionregistration.k8s.io/validatingwebhookconfigurations named agent-lifecycle",
		"cluster: watch admissionregistration.k8s.io/mutatingwebhookconfigurations named agent-lifecycle",
		"cluster: watch admissionregistration.k8s.io/validatingwebhookconfigurations named agent-lifecycle",
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
		want := slices.Concat(rightsToFacts, rightsToBreaker, rightsToReap, rightsToReadRegistrations)
		if in.name != withCertManager {
			want = append(want, rightsToKeepCertificates...)
		}
		slices.Sort(want)
		want = slices.Compact(want)

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
			slices.Sort(rights)
			got[subject] = slices.Compact(rights) // two roles may grant the same
		}

		server := "ServiceAccount dexorder-system/" + in.deployment.Spec.Template.Spec.ServiceAccountName
		all := map[string][]string{server: want, "ServiceAccount dexorder-agents/agent-lifecycle": rightsOfAgents}
		if diff := cmp.Diff(all, got); diff != "" {
			t.Errorf("rights by subject (-want +got):\n%s", diff)
		}
	})
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

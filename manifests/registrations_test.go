package manifests

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

const registrationName = "agent-lifecycle"

func TestMutatingRegistration(t *testing.T) {
	forEachInstallation(t, func(t *testing.T, in installed) {
		config := as[admissionregistrationv1.MutatingWebhookConfiguration](t,
			one(t, in.objects, "MutatingWebhookConfiguration", registrationName))
		if len(config.Webhooks) != 2 {
			t.Fatalf("%d webhooks, want 2", len(config.Webhooks))
		}
		webhook := config.Webhooks[0]
		if webhook.Name != "mutate.lifecycle.dexorder.io" {
			t.Errorf("name %q", webhook.Name)
		}
		if got := webhook.ReinvocationPolicy; got == nil || *got != admissionregistrationv1.IfNeededReinvocationPolicy {
			t.Errorf("reinvocationPolicy %v: what a later webhook adds would go unseen", got)
		}
		checkCall(t, webhook.ClientConfig, "/mutate")
		checkTerms(t, webhook.FailurePolicy, webhook.SideEffects, webhook.TimeoutSeconds, admissionregistrationv1.SideEffectClassNone)
		want := []string{
			"CREATE apps/v1/deployments",
			"UPDATE apps/v1/deployments",
		}
		if diff := cmp.Diff(want, ruleLines(webhook.Rules)); diff != "" {
			t.Errorf("rules (-want +got):\n%s", diff)
		}
	})
}

// Stamps hold nothing up: neither by a server that does not answer, nor for long by one that is slow.
func TestStampRegistration(t *testing.T) {
	forEachInstallation(t, func(t *testing.T, in installed) {
		config := as[admissionregistrationv1.MutatingWebhookConfiguration](t,
			one(t, in.objects, "MutatingWebhookConfiguration", registrationName))
		webhook := config.Webhooks[len(config.Webhooks)-1]
		if webhook.Name != "stamp.lifecycle.dexorder.io" {
			t.Errorf("name %q", webhook.Name)
		}
		if got := webhook.ReinvocationPolicy; got == nil || *got != admissionregistrationv1.IfNeededReinvocationPolicy {
			t.Errorf("reinvocationPolicy %v: what a later webhook changes would go unseen", got)
		}
		checkCall(t, webhook.ClientConfig, "/stamp")
		if got := webhook.FailurePolicy; got == nil || *got != admissionregistrationv1.Ignore {
			t.Errorf("failurePolicy %v, want Ignore", got)
		}
		if got := webhook.SideEffects; got == nil || *got != admissionregistrationv1.SideEffectClassNone {
			t.Errorf("sideEffects %v, want None", got)
		}
		if got := webhook.TimeoutSeconds; got == nil || *got != 2 {
			t.Errorf("timeoutSeconds %v, want 2", got)
		}
		want := []string{
			"CREATE batch/v1/jobs",
			"CREATE v1/configmaps",
			"CREATE v1/secrets",
		}
		if diff := cmp.Diff(want, ruleLines(webhook.Rules)); diff != "" {
			t.Errorf("rules (-want +got):\n%s", diff)
		}
	})
}

func TestValidatingRegistration(t *testing.T) {
	forEachInstallation(t, func(t *testing.T, in installed) {
		config := as[admissionregistrationv1.ValidatingWebhookConfiguration](t,
			one(t, in.objects, "ValidatingWebhookConfiguration", registrationName))
		if len(config.Webhooks) != 2 {
			t.Fatalf("%d webhooks, want 2", len(config.Webhooks))
		}
		webhook := config.Webhooks[0]
		if webhook.Name != "validate.lifecycle.dexorder.io" {
			t.Errorf("name %q", webhook.Name)
		}
		checkCall(t, webhook.ClientConfig, "/validate")
		// The circuit breaker and Events are written, and not by dry runs.
		checkTerms(t, webhook.FailurePolicy, webhook.SideEffects, webhook.TimeoutSeconds,
			admissionregistrationv1.SideEffectClassNoneOnDryRun)
		want := []string{
			"CREATE apps/v1/daemonsets",
			"CREATE apps/v1/deployments",
			"CREATE apps/v1/replicasets",
			"CREATE apps/v1/statefulsets",
			"CREATE batch/v1/cronjobs",
			"CREATE batch/v1/jobs",
			"CREATE v1/persistentvolumeclaims",
			"CREATE v1/pods",
			"CREATE v1/replicationcontrollers",
			"CREATE v1/services",
			"DELETE apps/v1/deployments",
			"DELETE v1/persistentvolumeclaims",
			"DELETE v1/pods",
			"DELETE v1/services",
			"UPDATE apps/v1/daemonsets",
			"UPDATE apps/v1/deployments",
			"UPDATE apps/v1/deployments/scale",
			"UPDATE apps/v1/replicasets",
			"UPDATE apps/v1/replicasets/scale",
			"UPDATE apps/v1/statefulsets",
			"UPDATE apps/v1/statefulsets/scale",
			"UPDATE batch/v1/cronjobs",
			"UPDATE batch/v1/jobs",
			"UPDATE v1/persistentvolumeclaims",
			"UPDATE v1/pods",
			"UPDATE v1/pods/ephemeralcontainers",
			"UPDATE v1/pods/resize",
			"UPDATE v1/replicationcontrollers",
			"UPDATE v1/replicationcontrollers/scale",
			"UPDATE v1/services",
		}
		if diff := cmp.Diff(want, ruleLines(webhook.Rules)); diff != "" {
			t.Errorf("rules (-want +got):\n%s", diff)
		}
	})
}

// The policy can be installed before a server runs, and mended when none can start.
func TestPolicyRegistration(t *testing.T) {
	forEachInstallation(t, func(t *testing.T, in installed) {
		config := as[admissionregistrationv1.ValidatingWebhookConfiguration](t,
			one(t, in.objects, "ValidatingWebhookConfiguration", registrationName))
		webhook := config.Webhooks[len(config.Webhooks)-1]
		if webhook.Name != "policy.lifecycle.dexorder.io" {
			t.Errorf("name %q", webhook.Name)
		}
		checkCall(t, webhook.ClientConfig, "/policy/2")
		if got := webhook.FailurePolicy; got == nil || *got != admissionregistrationv1.Ignore {
			t.Errorf("failurePolicy %v, want Ignore", got)
		}
		if got := webhook.SideEffects; got == nil || *got != admissionregistrationv1.SideEffectClassNone {
			t.Errorf("sideEffects %v, want None", got)
		}
		if got := webhook.TimeoutSeconds; got == nil || *got != 5 {
			t.Errorf("timeoutSeconds %v, want 5", got)
		}
		want := []string{"CREATE v1/configmaps", "UPDATE v1/configmaps"}
		if diff := cmp.Diff(want, ruleLines(webhook.Rules)); diff != "" {
			t.Errorf("rules (-want +got):\n%s", diff)
		}
		policy := one(t, in.objects, "ConfigMap", lifecycle.PolicyConfigMap)
		selected := &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: policy.GetNamespace()}}
		if diff := cmp.Diff(selected, webhook.NamespaceSelector); diff != "" {
			t.Errorf("namespaceSelector (-want +got):\n%s", diff)
		}
	})
}

func TestBothRegistrationsMatchAlike(t *testing.T) {
	forEachInstallation(t, func(t *testing.T, in installed) {
		mutating := as[admissionregistrationv1.MutatingWebhookConfiguration](t,
			one(t, in.objects, "MutatingWebhookConfiguration", registrationName))
		validating := as[admissionregistrationv1.ValidatingWebhookConfiguration](t,
			one(t, in.objects, "ValidatingWebhookConfiguration", registrationName))
		conditions := mutating.Webhooks[0].MatchConditions
		if len(conditions) == 0 {
			t.Error("no match conditions: every namespace would be matched")
		}
		// What only one of them is sent needs no condition in the other.
		alike := slices.DeleteFunc(validating.Webhooks[0].MatchConditions, func(c admissionregistrationv1.MatchCondition) bool {
			return c.Name == "deletes-as-agent-or-gateway" || c.Name == "service-of-gateway"
		})
		if diff := cmp.Diff(conditions, alike); diff != "" {
			t.Errorf("match conditions (-mutating +validating):\n%s", diff)
		}
	})
}

func TestCertManagerInjects(t *testing.T) {
	forEachInstallation(t, func(t *testing.T, in installed) {
		want := ""
		if in.name == withCertManager {
			certificate := one(t, in.objects, "Certificate", "lifecycle-webhook")
			want = certificate.GetNamespace() + "/" + certificate.GetName()
		}
		for _, kind := range []string{"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"} {
			config := one(t, in.objects, kind, registrationName)
			if got := config.GetAnnotations()["cert-manager.io/inject-ca-from"]; got != want {
				t.Errorf("%s: inject-ca-from is %q, want %q", kind, got, want)
			}
		}
	})
}

func checkCall(t *testing.T, call admissionregistrationv1.WebhookClientConfig, path string) {
	t.Helper()
	if len(call.CABundle) > 0 {
		t.Error("caBundle is set: every apply would put an old one back")
	}
	service := call.Service
	if service == nil || service.Path == nil || service.Port == nil {
		t.Fatalf("clientConfig %v, want a service with path and port", call)
	}
	got := fmt.Sprintf("%s.%s:%d%s", service.Name, service.Namespace, *service.Port, *service.Path)
	if want := "lifecycle-webhook.dexorder-system:443" + path; got != want {
		t.Errorf("calls %s, want %s", got, want)
	}
}

func checkTerms(
	t *testing.T,
	failure *admissionregistrationv1.FailurePolicyType, effects *admissionregistrationv1.SideEffectClass, seconds *int32,
	wantEffects admissionregistrationv1.SideEffectClass,
) {
	t.Helper()
	if failure == nil || *failure != admissionregistrationv1.Fail {
		t.Errorf("failurePolicy %v: a dead server would let everything in", failure)
	}
	if effects == nil || *effects != wantEffects {
		t.Errorf("sideEffects %v, want %s", effects, wantEffects)
	}
	if seconds == nil || *seconds != 5 {
		t.Errorf("timeoutSeconds %v, want 5", seconds)
	}
}

// ruleLines spells rules out, one line for each operation and resource, sorted.
func ruleLines(rules []admissionregistrationv1.RuleWithOperations) []string {
	var lines []string
	for _, rule := range rules {
		for _, operation := range rule.Operations {
			for _, group := range rule.APIGroups {
				for _, version := range rule.APIVersions {
					for _, resource := range rule.Resources {
						path := strings.TrimPrefix(strings.Join([]string{group, version, resource}, "/"), "/")
						lines = append(lines, fmt.Sprintf("%s %s", operation, path))
					}
				}
			}
		}
		if rule.Scope == nil || *rule.Scope != admissionregistrationv1.NamespacedScope {
			lines = append(lines, fmt.Sprintf("scope %v", rule.Scope))
		}
	}
	slices.Sort(lines)
	return lines
}

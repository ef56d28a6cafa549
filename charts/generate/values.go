package main

// copies are files of the chart that are files of the manifests.
var copies = map[string]string{
	"files/policy.yaml": "base/policy.yaml",
	"files/agent.yaml":  "components/gateway/agent.yaml",
}

// plain is what every installation has, whatever the values say.
var plain = []string{"gateway"}

// switches are what values turn on and off, in the order in which a kustomization lists the components.
var switches = []choice{
	{when: `(eq .Values.reaper.mode "deployment")`, component: "reaper-deployment"},
	{when: `(eq .Values.reaper.mode "cronjob")`, component: "reaper-cronjob"},
	{when: `.Values.certManager.enabled`, component: "cert-manager"},
	{when: `.Values.nats.url`, component: "nats"},
	{when: `(and .Values.nats.url .Values.nats.credentials)`, component: "nats-credentials"},
	{when: `.Values.reaper.retainSecrets`, component: "retain-secrets"},
	{when: `.Values.isolation.enabled`, component: "isolation"},
	{when: `.Values.controllerCleanup`, component: "controller-cleanup"},
	{when: `.Values.systemIsolation.enabled`, component: "system-isolation"},
	{when: `.Values.systemIsolation.webhookCallers`, component: "webhook-callers"},
	{when: `.Values.alerts.enabled`, component: "alerts"},
	// Helm has no namespace to keep its record in but one that is there before the chart.
	{when: `(eq .Release.Namespace "dexorder-system")`, leaveOut: "Namespace dexorder-system"},
	{when: `(not .Values.agents.enforcePodSecurity)`, remove: place{"Namespace", "dexorder-agents",
		[]any{"metadata", "labels"}}, keys: []string{"pod-security.kubernetes.io/enforce", "pod-security.kubernetes.io/enforce-version"}},
}

// exclusive are the components of which an installation has one at most.
var exclusive = []string{"reaper-deployment", "reaper-cronjob"}

// holes are the places that values fill.
var holes = []hole{
	{place: place{"Deployment", "lifecycle-webhook", []any{"spec", "replicas"}}, with: `{{ .Values.server.replicas }}`},
	{place: place{"Deployment", "lifecycle-webhook", container("image")}, with: image("lifecycle-webhook")},
	{place: place{"Deployment", "lifecycle-webhook", container("resources")}, with: subtree(".Values.server.resources")},
	{place: place{"Deployment", "lifecycle-webhook", container("args")}, item: true, with: `{{- with .Values.server.logLevel }}
- --log-level={{ . }}
{{- end }}`},
	{place: place{"Deployment", "lifecycle-reaper", container("image")}, with: image("lifecycle-webhook")},
	{place: place{"CronJob", "lifecycle-reaper", append([]any{"spec", "jobTemplate"}, container("image")...)}, with: image("lifecycle-webhook")},
	{place: place{"Deployment", "agent-gateway", []any{"spec", "replicas"}}, with: `{{ .Values.gateway.replicas }}`},
	{place: place{"Deployment", "agent-gateway", container("image")}, with: image("agent-gateway")},
	{place: place{"Deployment", "agent-gateway", container("args")}, item: true, with: `{{- range .Values.gateway.allow }}
- {{ printf "--allow=%s" . | quote }}
{{- end }}`},
	{place: place{"Deployment", "agent-gateway", []any{"spec", "template", "spec", "volumes", 1, "configMap", "name"}},
		with: `{{ include "agent-gateway.name" . }}`},
	{place: place{"ConfigMap", "agent-gateway", []any{"metadata", "name"}}, with: `{{ include "agent-gateway.name" . }}`},
	{place: place{"ConfigMap", "agent-gateway", []any{"data"}},
		with: subtree(`(dict "agent.yaml" (.Values.gateway.agentTemplate | default (.Files.Get "files/agent.yaml")))`)},
	{place: place{"ConfigMap", "lifecycle-policy", []any{"data"}},
		with: subtree(`(dict "policy.yaml" (.Values.policy | default (.Files.Get "files/policy.yaml")))`)},
	{place: place{"ConfigMap", "lifecycle-nats", []any{"data", "url"}}, with: `{{ .Values.nats.url | quote }}`},
	{place: place{"NetworkPolicy", "api-server", []any{"spec", "egress", 0, "to"}}, with: `
{{- range .Values.isolation.apiServer }}
- ipBlock:
    cidr: {{ . | quote }}
{{- end }}`},
	{place: place{"NetworkPolicy", "lifecycle-webhook", []any{"spec", "ingress", 0, "from"}}, optional: true,
		with: subtree(".Values.systemIsolation.webhookCallers")},
	{place: place{"NetworkPolicy", "lifecycle-webhook", []any{"spec", "ingress", 1, "from"}}, with: metricsFrom},
	{place: place{"NetworkPolicy", "lifecycle-reaper", []any{"spec", "ingress", 0, "from"}}, with: metricsFrom},
	{place: place{"NetworkPolicy", "lifecycle-reaper", []any{"spec", "egress", 0}}, with: apiServerRule},
	{place: place{"NetworkPolicy", "lifecycle-reaper", []any{"spec", "egress"}}, item: true, with: extraEgress},
	{place: place{"NetworkPolicy", "agent-gateway", []any{"spec", "ingress", 0, "from"}}, with: metricsFrom},
	{place: place{"NetworkPolicy", "agent-gateway", []any{"spec", "ingress"}}, item: true,
		with: `{{- if or .Values.gateway.allow .Values.systemIsolation.gatewayCallers }}
- ports:
  - port: 8000
    protocol: TCP
  from:
{{- include "agent-gateway.callers" . | nindent INDENT }}
{{- end }}`},
	{place: place{"NetworkPolicy", "agent-gateway", []any{"spec", "egress", 0}}, with: apiServerRule},
	{place: place{"NetworkPolicy", "agent-gateway", []any{"spec", "egress"}}, item: true, with: extraEgress},
	{place: place{"MutatingWebhookConfiguration", "agent-lifecycle", []any{"webhooks", 0, "matchConditions", 1, "expression"}}, with: notLeftOut},
	{place: place{"MutatingWebhookConfiguration", "agent-lifecycle", []any{"webhooks", 1, "matchConditions", 1, "expression"}}, with: notLeftOut},
	{place: place{"ValidatingWebhookConfiguration", "agent-lifecycle", []any{"webhooks", 0, "matchConditions", 1, "expression"}}, with: notLeftOut},
	{place: place{"ValidatingAdmissionPolicy", "agent-self-delete", []any{"spec", "matchConditions", 1, "expression"}}, with: notLeftOut},
	{place: place{"ValidatingAdmissionPolicy", "agent-namespace-reaping", []any{"spec", "matchConditions", 1, "expression"}}, with: notLeftOut},
	{place: place{"ValidatingAdmissionPolicy", "agent-reaper-writes", []any{"spec", "variables", 0, "expression"}}, with: leftOut},
	{place: place{"ValidatingAdmissionPolicy", "agent-reaper-deletes", []any{"spec", "variables", 0, "expression"}}, with: leftOut},
}

// notLeftOut is a condition that leaves out what the values say, leftOut the list of it.
const (
	notLeftOut = `{{ printf "!(request.namespace in %s)" (toJson .Values.agents.leftOut) | quote }}`
	leftOut    = `{{ toJson .Values.agents.leftOut | quote }}`
)

// What several policies of the component system-isolation have in common.
var (
	metricsFrom   = subtree(".Values.systemIsolation.metricsFrom")
	apiServerRule = `{{- include "system-isolation.api-server" . | nindent INDENT }}`
	extraEgress   = `{{- range .Values.systemIsolation.extraEgress }}
- {{- toYaml . | nindent INDENT }}
{{- end }}`
)

// container is the path to a field of the first container.
func container(field string) []any {
	return []any{"spec", "template", "spec", "containers", 0, field}
}

func image(name string) string {
	return `{{ printf "%s/` + name + `:%s" .Values.image.registry (.Values.image.tag | default .Chart.AppVersion) | quote }}`
}

// subtree is a value that is more than a scalar. The number of spaces before it is put in where it stands.
func subtree(value string) string {
	return `{{- toYaml ` + value + ` | nindent INDENT }}`
}

{{- /* The name of the ConfigMap with the gateway's template, which changes with its content so that a change rolls the gateway
out. It is made as kustomize makes it, which leaves the name out of it. */ -}}
{{- define "agent-gateway.name" -}}
{{- $data := dict "agent.yaml" (.Values.gateway.agentTemplate | default (.Files.Get "files/agent.yaml")) -}}
{{- $hash := dict "data" $data "kind" "ConfigMap" "name" "" | toJson | sha256sum | trunc 10 -}}
{{- printf "agent-gateway-%s" ($hash | replace "0" "g" | replace "1" "h" | replace "3" "k" | replace "a" "m" | replace "e" "t") -}}
{{- end -}}

{{- /* Who may reach the gateway's port, as peers of a NetworkPolicy: the namespaces of the accounts that may call it, and who is named
beside them. */ -}}
{{- define "agent-gateway.callers" -}}
{{- $peers := list -}}
{{- range .Values.gateway.allow -}}
{{- $namespace := index (splitList ":" .) 2 -}}
{{- $peers = append $peers (dict "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" $namespace))) -}}
{{- end -}}
{{- concat $peers .Values.systemIsolation.gatewayCallers | uniq | toYaml -}}
{{- end -}}

{{- /* The egress rule to the API server. Without addresses it has no "to", which would otherwise be a list of none. */ -}}
{{- define "system-isolation.api-server" -}}
ports:
- port: 443
  protocol: TCP
- port: 6443
  protocol: TCP
{{- with .Values.systemIsolation.apiServer }}
to:
{{- range . }}
- ipBlock:
    cidr: {{ . | quote }}
{{- end }}
{{- end }}
{{- end -}}

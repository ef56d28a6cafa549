{{- /* The name of the ConfigMap with the gateway's template, which changes with its content so that a change rolls the gateway
out. It is made as kustomize makes it, which leaves the name out of it. */ -}}
{{- define "agent-gateway.name" -}}
{{- $data := dict "agent.yaml" (.Values.gateway.agentTemplate | default (.Files.Get "files/agent.yaml")) -}}
{{- $hash := dict "data" $data "kind" "ConfigMap" "name" "" | toJson | sha256sum | trunc 10 -}}
{{- printf "agent-gateway-%s" ($hash | replace "0" "g" | replace "1" "h" | replace "3" "k" | replace "a" "m" | replace "e" "t") -}}
{{- end -}}

package provision

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// templateKey is the one key of the ConfigMap that Template makes.
const templateKey = "objects.yaml"

// Template is the ConfigMap with which the reaper compares the namespaces of the role: what is applied, and the metadata of the Secrets
// without which the agent does not start. It is for the role's namespaces in that org and environment.
func (r *Rendered) Template(systemNamespace string) (*unstructured.Unstructured, error) {
	secrets, err := r.Secrets()
	if err != nil {
		return nil, err
	}
	objects := r.Objects
	for _, s := range secrets {
		if !s.Optional {
			objects = append(objects[:len(objects):len(objects)], &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": s.Name},
			}})
		}
	}
	var text strings.Builder
	for i, o := range objects {
		document, err := yaml.Marshal(r.generalized(o))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", nameOf(o), err)
		}
		if i > 0 {
			text.WriteString("---\n")
		}
		text.Write(document)
	}
	template := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "data": map[string]any{templateKey: text.String()},
	}}
	template.SetNamespace(systemNamespace)
	template.SetName(lifecycle.ProvisionedTemplateName(r.Role.Name, r.Role.Org, r.Role.Environment))
	template.SetLabels(map[string]string{
		lifecycle.LabelRoleTemplate: r.Role.Name, lifecycle.LabelOrg: r.Role.Org, lifecycle.LabelEnvironment: r.Role.Environment,
	})
	return template, nil
}

// generalized returns an object with a placeholder wherever a value is the namespace's name.
func (r *Rendered) generalized(o *unstructured.Unstructured) any {
	var general func(any) any
	general = func(value any) any {
		switch value := value.(type) {
		case map[string]any:
			fields := make(map[string]any, len(value))
			for key, below := range value {
				fields[key] = general(below)
			}
			return fields
		case []any:
			entries := make([]any, len(value))
			for i := range value {
				entries[i] = general(value[i])
			}
			return entries
		case string:
			if value == r.Namespace {
				return lifecycle.NamespacePlaceholder
			}
		}
		return value
	}
	return general(o.Object)
}

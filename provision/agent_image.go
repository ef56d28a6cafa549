package provision

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/workload"
)

// setAgentImage has the agent's container of every Deployment that says which one it is run an image. Where none says
// so, and there is one Deployment, the only container of that is the agent's, as for admission. What runs beside an
// agent keeps its image.
func setAgentImage(objects []*unstructured.Unstructured, image string) error {
	var deployments []*unstructured.Unstructured
	for _, o := range objects {
		if o.GetKind() == kindDeployment {
			deployments = append(deployments, o)
		}
	}
	var names []string
	found := false
	for _, o := range deployments {
		names = append(names, nameOf(o))
		template, err := templateOf(o)
		if err != nil {
			return fmt.Errorf("%s: %w", nameOf(o), err)
		}
		if len(deployments) > 1 && !namesAgent(template) {
			continue
		}
		i, err := workload.AgentContainer(template)
		if err != nil {
			return fmt.Errorf("%s: %w", nameOf(o), err)
		}
		if err := setImage(o, i, image); err != nil {
			return fmt.Errorf("%s: %w", nameOf(o), err)
		}
		found = true
	}
	switch {
	case found:
		return nil
	case len(deployments) == 0:
		return errors.New("no Deployment would run it")
	}
	return fmt.Errorf("which of %s runs the agent? Call its container %q, or name it in the template's annotation %s", strings.Join(names, ", "),
		lifecycle.AgentContainer, lifecycle.AnnotationAgentContainer)
}

// namesAgent says whether a template itself says which of its containers runs the agent.
func namesAgent(template *corev1.PodTemplateSpec) bool {
	_, annotated := template.Annotations[lifecycle.AnnotationAgentContainer]
	return annotated || slices.ContainsFunc(template.Spec.Containers, func(c corev1.Container) bool { return c.Name == lifecycle.AgentContainer })
}

func templateOf(o *unstructured.Unstructured) (*corev1.PodTemplateSpec, error) {
	fields, _, err := unstructured.NestedMap(o.Object, "spec", "template")
	if err != nil {
		return nil, err
	}
	template := &corev1.PodTemplateSpec{}
	return template, runtime.DefaultUnstructuredConverter.FromUnstructured(fields, template)
}

// setImage sets the image of a Deployment's ith container, and changes nothing else of it.
func setImage(o *unstructured.Unstructured, i int, image string) error {
	path := []string{"spec", "template", "spec", "containers"}
	containers, _, err := unstructured.NestedSlice(o.Object, path...)
	if err != nil {
		return err
	}
	fields, is := containers[i].(map[string]any)
	if !is {
		return fmt.Errorf("spec.template.spec.containers[%d] is no container", i)
	}
	fields["image"] = image
	return unstructured.SetNestedSlice(o.Object, containers, path...)
}

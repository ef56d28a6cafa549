package fleet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/workload"
)

const (
	// gatewayName is what the manifests call the gateway's Deployment, whose ConfigMap has the template of users' agents.
	gatewayName = "agent-gateway"

	// gatewayNamespaceFlag says where the gateway makes agents, defaultAgentsNamespace where it does without.
	gatewayNamespaceFlag   = "--agents-namespace="
	gatewayTemplateFlag    = "--template="
	defaultAgentsNamespace = "dexorder-agents"

	// deploymentPlaceholder stands for the agent's name in the gateway's template; templateAgent is one for a verdict.
	deploymentPlaceholder = "{deployment}"
	templateAgent         = "agent-0"
)

// template is a ConfigMap of YAML documents of which agents are made.
type template struct {
	configMap *corev1.ConfigMap

	// namespace that the agents are made in; for a role, one as the role's namespaces are called.
	namespace string
}

// templates returns the gateway's template and those of roles. Whoever may not read them gets an error that is Forbidden.
func (c *Cluster) templates(ctx context.Context) ([]template, error) {
	var all []template
	gateway, err := c.client.AppsV1().Deployments(c.system).Get(ctx, gatewayName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return nil, fmt.Errorf("read the gateway's Deployment: %w", err)
	default:
		if all, err = c.gatewayTemplates(ctx, gateway); err != nil {
			return nil, err
		}
	}
	roles, err := c.client.CoreV1().ConfigMaps(c.system).List(ctx, metav1.ListOptions{LabelSelector: lifecycle.LabelRoleTemplate})
	if err != nil {
		return nil, fmt.Errorf("list role templates: %w", err)
	}
	for i := range roles.Items {
		role := roles.Items[i].Labels[lifecycle.LabelRoleTemplate]
		all = append(all, template{&roles.Items[i], "agent-" + role})
	}
	return all, nil
}

func (c *Cluster) gatewayTemplates(ctx context.Context, gateway *appsv1.Deployment) ([]template, error) {
	namespace, mounted := defaultAgentsNamespace, ""
	for _, container := range gateway.Spec.Template.Spec.Containers {
		for _, arg := range container.Args {
			if value, found := strings.CutPrefix(arg, gatewayNamespaceFlag); found {
				namespace = value
			}
			if file, found := strings.CutPrefix(arg, gatewayTemplateFlag); found {
				mounted = mountedVolume(&container, file)
			}
		}
	}
	var all []template
	for _, volume := range gateway.Spec.Template.Spec.Volumes {
		if volume.ConfigMap == nil || volume.Name != mounted {
			continue
		}
		m, err := c.client.CoreV1().ConfigMaps(c.system).Get(ctx, volume.ConfigMap.Name, metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("read the gateway's template: %w", err)
		}
		all = append(all, template{m, namespace})
	}
	return all, nil
}

// mountedVolume names the volume that a container has in the directory of a file; empty if there is none.
func mountedVolume(c *corev1.Container, file string) string {
	for _, mount := range c.VolumeMounts {
		if path.Clean(mount.MountPath) == path.Dir(file) {
			return mount.Name
		}
	}
	return ""
}

// auditTemplates reports what would be refused of the creation of each workload in a template.
func (a *Audit) auditTemplates(ctx context.Context, namespace string, report func(*Report) error) error {
	all, err := a.Cluster.templates(ctx)
	if apierrors.IsForbidden(err) {
		return report(&Report{Kind: "ConfigMap", Namespace: a.Cluster.system, Name: "*", Template: "templates", NotRead: err.Error()})
	}
	if err != nil {
		return err
	}
	for _, t := range all {
		if !a.covers(t.namespace) || namespace != "" && namespace != t.namespace {
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(t.configMap.Data)) {
			for _, r := range a.judgeTemplate(t, key) {
				if err := report(r); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// judgeTemplate judges the documents under one key of a template.
func (a *Audit) judgeTemplate(t template, key string) []*Report {
	from := fmt.Sprintf("ConfigMap %s/%s, %s", t.configMap.Namespace, t.configMap.Name, key)
	text := strings.NewReplacer(deploymentPlaceholder, templateAgent, lifecycle.NamespacePlaceholder, t.namespace).
		Replace(t.configMap.Data[key])
	documents := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	var reports []*Report
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return reports
		}
		var kind metav1.PartialObjectMetadata
		if err == nil {
			err = yaml.Unmarshal(document, &kind)
		}
		if err != nil {
			return append(reports, &Report{
				Kind: "ConfigMap", Namespace: t.configMap.Namespace, Name: t.configMap.Name, Template: from, NotUnderstood: err.Error(),
			})
		}
		if !slices.ContainsFunc(audited, func(k auditedKind) bool { return k.gvk == kind.GroupVersionKind() }) {
			continue // It makes no Pods.
		}
		reports = append(reports, a.judgeDocument(t.namespace, from, document, &kind))
	}
}

func (a *Audit) judgeDocument(namespace, from string, document []byte, kind *metav1.PartialObjectMetadata) *Report {
	r := &Report{Kind: kind.Kind, Namespace: namespace, Name: kind.Name, Template: from}
	if r.Name == templateAgent {
		r.Name = deploymentPlaceholder
	}
	decode := func() (*workload.Object, error) {
		data, err := yaml.YAMLToJSON(document)
		if err != nil {
			return nil, err
		}
		return workload.Decode(kind.GroupVersionKind(), data)
	}
	o, err := decode()
	if err != nil {
		r.NotUnderstood = err.Error()
		return r
	}
	v := a.By.Creation(namespace, o)
	r.Refused, r.Warned, r.Audited = v.Denials, v.Warnings, v.Audits
	if a.Today == nil {
		return r
	}
	if o, err = decode(); err == nil { // the first one has been injected
		v = a.Today.Creation(namespace, o)
		r.compare(&Report{Refused: v.Denials, Warned: v.Warnings, Audited: v.Audits})
	}
	return r
}

// Creation says what would be said of the creation of a workload, by an ordinary user, after injection. It changes the object.
func (j *Judge) Creation(namespace string, o *workload.Object) policy.Verdict {
	if injector := j.policy.Injector(namespace); injector != nil && o.Deployment != nil {
		injector.Deployment(o.Deployment, nil, j.options)
		o = workload.FromDeployment(o.Deployment)
	}
	return j.policy.Review(&policy.Request{
		Operation: admissionv1.Create, Namespace: namespace, Name: o.Meta.Name, Object: o, Facts: &policy.Facts{},
	})
}

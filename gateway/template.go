package gateway

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/dexorder/agent-lifecycle/workload"
)

// namePlaceholder stands in a template for the agent's name.
const namePlaceholder = "{deployment}"

// Template is what an agent is made of: a Deployment, a PersistentVolumeClaim and a Service.
type Template struct {
	text string

	// addressed is why its Services are not headless; empty if they are.
	addressed string

	// hash tells the Pods of one template from those of another.
	hash string

	// http2 says that the agents speak another protocol than the gateway; empty if they do not.
	http2 string
}

// Warnings are about what is accepted and should be changed.
func (t *Template) Warnings() []string {
	var warnings []string
	if t.addressed != "" {
		warnings = append(warnings, "template: Service: has an address, of which Pods with service links are told: "+t.addressed)
	}
	if t.http2 != "" {
		warnings = append(warnings, "template: Service: "+t.http2)
	}
	return warnings
}

// objects are one agent's.
type objects struct {
	deployment *appsv1.Deployment
	claim      *corev1.PersistentVolumeClaim
	service    *corev1.Service

	// addressed is why the Service is not headless; empty if it is.
	addressed string
}

// ParseTemplate reads YAML documents of exactly one Deployment, PersistentVolumeClaim and Service, in which "{deployment}" stands
// for the agent's name. An error names the document and what would be accepted.
func ParseTemplate(text []byte) (*Template, error) {
	t := &Template{text: string(text)}
	const name = "agent-0"
	o, err := t.render(name)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, object := range []struct {
		kind, want string
		meta       *metav1.ObjectMeta
	}{
		{"Deployment", namePlaceholder, &o.deployment.ObjectMeta},
		{"PersistentVolumeClaim", namePlaceholder + "-data", &o.claim.ObjectMeta},
		{"Service", namePlaceholder, &o.service.ObjectMeta},
	} {
		if object.meta.Name != strings.ReplaceAll(object.want, namePlaceholder, name) {
			errs = append(errs, fmt.Errorf("template: %s: metadata.name %q: must be %q", object.kind,
				strings.ReplaceAll(object.meta.Name, name, namePlaceholder), object.want))
		}
		if object.meta.Namespace != "" || len(object.meta.OwnerReferences) > 0 || len(object.meta.Finalizers) > 0 {
			errs = append(errs, fmt.Errorf("template: %s: namespace, ownerReferences and finalizers must be left out", object.kind))
		}
	}
	if _, err := workload.AgentContainer(&o.deployment.Spec.Template); err != nil {
		errs = append(errs, fmt.Errorf("template: Deployment: %w", err))
	} else if len(o.service.Spec.Ports) == 0 || o.podPort() == 0 {
		errs = append(errs, errors.New("template: Service: must have a port, whose targetPort is a port of the agent's container"))
	}
	if !slices.ContainsFunc(o.deployment.Spec.Template.Spec.Volumes, func(v corev1.Volume) bool {
		return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == o.claim.Name
	}) {
		errs = append(errs, fmt.Errorf("template: Deployment: mounts no claim %q", namePlaceholder+"-data"))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	t.addressed = o.addressed
	pods, err := json.Marshal(&o.deployment.Spec.Template)
	if err != nil {
		return nil, fmt.Errorf("template: Deployment: %w", err)
	}
	sum := sha256.Sum256(pods)
	t.hash = hex.EncodeToString(sum[:8])
	if p := o.service.Spec.Ports[0].AppProtocol; p != nil && slices.Contains([]string{"kubernetes.io/h2c", "grpc", "h2c", "http2"}, strings.ToLower(*p)) {
		t.http2 = fmt.Sprintf("spec.ports[0].appProtocol is %q: the gateway speaks HTTP/1.1 to agents, and no HTTP/2", *p)
	}
	return t, nil
}

// render makes the objects of one agent. What ParseTemplate has read renders for every name.
func (t *Template) render(name string) (*objects, error) {
	o := &objects{}
	documents := yaml.NewYAMLReader(bufio.NewReader(strings.NewReader(strings.ReplaceAll(t.text, namePlaceholder, name))))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("template: %w", err)
		}
		if err := o.decode(document); err != nil {
			return nil, err
		}
	}
	if o.deployment == nil || o.claim == nil || o.service == nil {
		return nil, errors.New("template: must hold one Deployment, one PersistentVolumeClaim and one Service")
	}
	o.addressed = o.makeHeadless()
	return o, nil
}

func (o *objects) decode(document []byte) error {
	var kind metav1.TypeMeta
	if err := sigsyaml.Unmarshal(document, &kind); err != nil {
		return fmt.Errorf("template: %w", err)
	}
	var into any
	twice := false
	switch kind.APIVersion + " " + kind.Kind {
	case " ":
		if len(bytes.TrimSpace(document)) == 0 || isComment(document) {
			return nil
		}
		return errors.New("template: a document has no kind; accepted are Deployment, PersistentVolumeClaim and Service")
	case "apps/v1 Deployment":
		twice, o.deployment = o.deployment != nil, new(appsv1.Deployment)
		into = o.deployment
	case "v1 PersistentVolumeClaim":
		twice, o.claim = o.claim != nil, new(corev1.PersistentVolumeClaim)
		into = o.claim
	case "v1 Service":
		twice, o.service = o.service != nil, new(corev1.Service)
		into = o.service
	default:
		return fmt.Errorf("template: %s %s: accepted are apps/v1 Deployment, v1 PersistentVolumeClaim and v1 Service",
			kind.APIVersion, kind.Kind)
	}
	if twice {
		return fmt.Errorf("template: there are two of kind %s", kind.Kind)
	}
	if err := sigsyaml.UnmarshalStrict(document, into); err != nil {
		return fmt.Errorf("template: %s: %w", kind.Kind, err)
	}
	return nil
}

func isComment(document []byte) bool {
	for line := range bytes.Lines(document) {
		if trimmed := bytes.TrimSpace(line); len(trimmed) > 0 && trimmed[0] != '#' && !bytes.Equal(trimmed, []byte("---")) {
			return false
		}
	}
	return true
}

// podPort is the port of the agent's container behind the Service's first port; 0 if there is none.
func (o *objects) podPort() int32 {
	target := o.service.Spec.Ports[0].TargetPort
	for _, port := range agentContainer(&o.deployment.Spec.Template).Ports {
		if target.StrVal != "" && port.Name == target.StrVal || target.IntVal != 0 && port.ContainerPort == target.IntVal {
			return port.ContainerPort
		}
	}
	return 0
}

// agentContainer is the one that runs the agent; nil if it cannot be told.
func agentContainer(template *corev1.PodTemplateSpec) *corev1.Container {
	i, err := workload.AgentContainer(template)
	if err != nil {
		return nil
	}
	return &template.Spec.Containers[i]
}

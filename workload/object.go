package workload

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Object is one decoded object. Object owns what it points to; Template points into the typed object, so that a change
// through one is seen through the other.
type Object struct {
	// Kind is the object's kind, such as Deployment, or Scale for a scale subresource.
	Kind string

	Meta *metav1.ObjectMeta

	// Template is where the object says what its Pods look like; for a Pod it is the Pod itself. Nil for kinds that run
	// nothing.
	Template *Template

	// Replicas is what the object asks for. Nil where it does not say, or its kind has none.
	Replicas *int32

	// Deployment is the typed object, nil for other kinds.
	Deployment *appsv1.Deployment

	// Claim is the typed object, nil for other kinds.
	Claim *corev1.PersistentVolumeClaim
}

// Template is a Pod template or a Pod.
type Template struct {
	// Path leads from the object's root to the template: "spec.template", or "" for a Pod.
	Path string
	Meta *metav1.ObjectMeta
	Spec *corev1.PodSpec
}

// Field returns the path of a field below the template, such as spec.template.spec.volumes.
func (t *Template) Field(below string) string {
	if t.Path == "" {
		return below
	}
	return t.Path + "." + below
}

// decoders is the list of every kind that is understood.
var decoders = []struct {
	group, kind string
	versions    []string
	decode      func([]byte) (*Object, error)
}{
	{"apps", "Deployment", []string{"v1"}, decodeDeployment},
	{"apps", "ReplicaSet", []string{"v1"}, decodeReplicaSet},
	{"apps", "StatefulSet", []string{"v1"}, decodeStatefulSet},
	{"apps", "DaemonSet", []string{"v1"}, decodeDaemonSet},
	{"batch", "Job", []string{"v1"}, decodeJob},
	{"batch", "CronJob", []string{"v1"}, decodeCronJob},
	{"", "ReplicationController", []string{"v1"}, decodeReplicationController},
	{"", "Pod", []string{"v1"}, decodePod},
	{"", "PersistentVolumeClaim", []string{"v1"}, decodeClaim},
	{"", "Service", []string{"v1"}, decodeService},
	{"autoscaling", "Scale", []string{"v1"}, decodeScale},
}

// Understands says whether Decode can read the kind.
func Understands(gvk schema.GroupVersionKind) bool {
	for _, d := range decoders {
		if d.group == gvk.Group && d.kind == gvk.Kind && slices.Contains(d.versions, gvk.Version) {
			return true
		}
	}
	return false
}

// Decode reads an object of the given kind. Field names are case-sensitive and unknown fields are passed over, as the
// API server does with fields that are newer than this program; a duplicate name, invalid UTF-8 or a value of the
// wrong type is an error that says where.
func Decode(gvk schema.GroupVersionKind, data []byte) (*Object, error) {
	for _, d := range decoders {
		if d.group != gvk.Group || d.kind != gvk.Kind || !slices.Contains(d.versions, gvk.Version) {
			continue
		}
		o, err := d.decode(data)
		if err != nil {
			return nil, fmt.Errorf("decode %s: %w", gvk.Kind, err)
		}
		o.Kind = d.kind
		return o, nil
	}
	return nil, fmt.Errorf("decode %s: kind not understood; known are %s", gvk, strings.Join(kinds(), ", "))
}

func kinds() []string {
	names := make([]string, 0, len(decoders))
	for _, d := range decoders {
		names = append(names, schema.GroupVersion{Group: d.group, Version: d.versions[0]}.String()+" "+d.kind)
	}
	return names
}

func unmarshal[T any](data []byte) (*T, error) {
	v := new(T)
	if err := json.Unmarshal(data, v, jsontext.AllowDuplicateNames(false), json.WithUnmarshalers(quantities)); err != nil {
		return nil, err
	}
	return v, nil
}

const templatePath = "spec.template"

func decodeDeployment(data []byte) (*Object, error) {
	d, err := unmarshal[appsv1.Deployment](data)
	if err != nil {
		return nil, err
	}
	return FromDeployment(d), nil
}

// FromDeployment views a typed Deployment, without copying it.
func FromDeployment(d *appsv1.Deployment) *Object {
	return &Object{
		Kind: "Deployment", Meta: &d.ObjectMeta, Replicas: d.Spec.Replicas, Deployment: d,
		Template: &Template{Path: templatePath, Meta: &d.Spec.Template.ObjectMeta, Spec: &d.Spec.Template.Spec},
	}
}

func decodeReplicaSet(data []byte) (*Object, error) {
	r, err := unmarshal[appsv1.ReplicaSet](data)
	if err != nil {
		return nil, err
	}
	return &Object{Meta: &r.ObjectMeta, Replicas: r.Spec.Replicas, Template: templateOf(&r.Spec.Template)}, nil
}

func decodeStatefulSet(data []byte) (*Object, error) {
	s, err := unmarshal[appsv1.StatefulSet](data)
	if err != nil {
		return nil, err
	}
	return &Object{Meta: &s.ObjectMeta, Replicas: s.Spec.Replicas, Template: templateOf(&s.Spec.Template)}, nil
}

func decodeDaemonSet(data []byte) (*Object, error) {
	d, err := unmarshal[appsv1.DaemonSet](data)
	if err != nil {
		return nil, err
	}
	return &Object{Meta: &d.ObjectMeta, Template: templateOf(&d.Spec.Template)}, nil
}

func decodeJob(data []byte) (*Object, error) {
	j, err := unmarshal[batchv1.Job](data)
	if err != nil {
		return nil, err
	}
	return &Object{Meta: &j.ObjectMeta, Template: templateOf(&j.Spec.Template)}, nil
}

func decodeCronJob(data []byte) (*Object, error) {
	c, err := unmarshal[batchv1.CronJob](data)
	if err != nil {
		return nil, err
	}
	t := templateOf(&c.Spec.JobTemplate.Spec.Template)
	t.Path = "spec.jobTemplate.spec.template"
	return &Object{Meta: &c.ObjectMeta, Template: t}, nil
}

func decodeReplicationController(data []byte) (*Object, error) {
	r, err := unmarshal[corev1.ReplicationController](data)
	if err != nil {
		return nil, err
	}
	o := &Object{Meta: &r.ObjectMeta, Replicas: r.Spec.Replicas}
	if r.Spec.Template == nil {
		r.Spec.Template = &corev1.PodTemplateSpec{}
	}
	o.Template = templateOf(r.Spec.Template)
	return o, nil
}

func decodePod(data []byte) (*Object, error) {
	p, err := unmarshal[corev1.Pod](data)
	if err != nil {
		return nil, err
	}
	return &Object{Meta: &p.ObjectMeta, Template: &Template{Meta: &p.ObjectMeta, Spec: &p.Spec}}, nil
}

func decodeClaim(data []byte) (*Object, error) {
	c, err := unmarshal[corev1.PersistentVolumeClaim](data)
	if err != nil {
		return nil, err
	}
	return &Object{Meta: &c.ObjectMeta, Claim: c}, nil
}

func decodeService(data []byte) (*Object, error) {
	s, err := unmarshal[corev1.Service](data)
	if err != nil {
		return nil, err
	}
	return &Object{Meta: &s.ObjectMeta}, nil
}

func decodeScale(data []byte) (*Object, error) {
	s, err := unmarshal[autoscalingv1.Scale](data)
	if err != nil {
		return nil, err
	}
	return &Object{Meta: &s.ObjectMeta, Replicas: &s.Spec.Replicas}, nil
}

func templateOf(t *corev1.PodTemplateSpec) *Template {
	return &Template{Path: templatePath, Meta: &t.ObjectMeta, Spec: &t.Spec}
}

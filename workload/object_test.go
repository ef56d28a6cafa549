package workload

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

func gvk(apiVersion, kind string) schema.GroupVersionKind {
	return schema.FromAPIVersionAndKind(apiVersion, kind)
}

func TestDecodeFindsTheTemplate(t *testing.T) {
	const pod = `{"containers": [{"name": "agent", "image": "a"}]}`
	for _, tc := range []struct {
		apiVersion, kind string
		spec             string
		path             string // of the container
		replicas         string
	}{
		{"apps/v1", "Deployment", `{"replicas": 3, "template": {"spec": %s}}`, "spec.template.spec.containers[0]", "3"},
		{"apps/v1", "ReplicaSet", `{"replicas": 0, "template": {"spec": %s}}`, "spec.template.spec.containers[0]", "0"},
		{"apps/v1", "StatefulSet", `{"template": {"spec": %s}}`, "spec.template.spec.containers[0]", "none"},
		{"apps/v1", "DaemonSet", `{"template": {"spec": %s}}`, "spec.template.spec.containers[0]", "none"},
		{"batch/v1", "Job", `{"template": {"spec": %s}}`, "spec.template.spec.containers[0]", "none"},
		{"batch/v1", "CronJob", `{"jobTemplate": {"spec": {"template": {"spec": %s}}}}`,
			"spec.jobTemplate.spec.template.spec.containers[0]", "none"},
		{"v1", "ReplicationController", `{"replicas": 1, "template": {"spec": %s}}`, "spec.template.spec.containers[0]", "1"},
		{"v1", "Pod", `%s`, "spec.containers[0]", "none"},
	} {
		t.Run(tc.kind, func(t *testing.T) {
			if !Understands(gvk(tc.apiVersion, tc.kind)) {
				t.Fatal("is not understood")
			}
			data := fmt.Sprintf(`{"metadata": {"name": "alice"}, "spec": %s}`, fmt.Sprintf(tc.spec, pod))
			o, err := Decode(gvk(tc.apiVersion, tc.kind), []byte(data))
			if err != nil {
				t.Fatal(err)
			}
			if o.Kind != tc.kind || o.Meta.Name != "alice" || (o.Deployment != nil) != (tc.kind == "Deployment") {
				t.Errorf("got kind %q, name %q, deployment %v", o.Kind, o.Meta.Name, o.Deployment != nil)
			}
			containers := o.Template.Containers()
			if len(containers) != 1 || containers[0].Path() != tc.path || containers[0].Image != "a" {
				t.Errorf("got containers %+v, want one at %s", containers, tc.path)
			}
			replicas := "none"
			if o.Replicas != nil {
				replicas = fmt.Sprint(*o.Replicas)
			}
			if replicas != tc.replicas {
				t.Errorf("got replicas %s, want %s", replicas, tc.replicas)
			}
		})
	}
}

func TestDecodeScale(t *testing.T) {
	o, err := Decode(gvk("autoscaling/v1", "Scale"), []byte(`{"metadata": {"name": "alice"}, "spec": {"replicas": 4}}`))
	if err != nil {
		t.Fatal(err)
	}
	if o.Kind != "Scale" || o.Template != nil || o.Meta.Name != "alice" || *o.Replicas != 4 {
		t.Errorf("got %+v", o)
	}
}

// TestDecodeWithoutAnything is about what the API server would refuse, and nobody may stumble over.
func TestDecodeWithoutAnything(t *testing.T) {
	for _, d := range decoders {
		for _, data := range []string{`{}`, `{"metadata": null, "spec": null}`, `{"spec": {"template": null}}`, `null`} {
			o, err := Decode(schema.GroupVersionKind{Group: d.group, Version: d.versions[0], Kind: d.kind}, []byte(data))
			if err != nil {
				t.Errorf("%s from %s: %v", d.kind, data, err)
				continue
			}
			if o.Meta == nil || o.Template == nil != slices.Contains([]string{"Scale", "PersistentVolumeClaim", "Service"}, d.kind) {
				t.Errorf("%s from %s: metadata %v, template %v", d.kind, data, o.Meta, o.Template)
			}
			if o.Template != nil && len(o.Template.Containers()) != 0 {
				t.Errorf("%s from %s: has containers", d.kind, data)
			}
		}
	}
}

func TestDecodeIsStrictWhereItMatters(t *testing.T) {
	for _, tc := range []struct {
		name, data string
		want       string // in the error; empty: none
	}{
		{"unknown fields are of newer APIs", `{"spec": {"template": {"spec": {"novelty": {"a": [1, {}]}, "volumes": [{"name": "v", "teleport": {}}]}}}}`, ""},
		{"names are case-sensitive", `{"Spec": {"replicas": "many"}, "SPEC": 1}`, ""},
		{"a duplicate name", `{"spec": {"replicas": 1, "replicas": 2}}`, `duplicate object member name "replicas"`},
		{"a duplicate label", `{"metadata": {"labels": {"a": "1", "a": "2"}}}`, `duplicate object member name "a"`},
		{"a duplicate unknown name", `{"novelty": {"a": 1, "a": 2}}`, `duplicate object member name "a"`},
		{"a value of the wrong type", `{"spec": {"replicas": "1"}}`, "/spec/replicas"},
		{"a number that is too large", `{"spec": {"replicas": 3000000000}}`, "/spec/replicas"},
		{"a bad quantity", `{"spec": {"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "lots"}}}]}}}}`, "quantities must match"},
		{"invalid UTF-8", "{\"metadata\": {\"name\": \"a\xff\"}}", "invalid UTF-8"},
		{"something after the end", `{} {}`, "after top-level value"},
		{"nothing", ``, "EOF"},
		{"half", `{"spec": {`, "EOF"},
		{"a list", `[]`, "unmarshal JSON array"},
		{"endless depth", `{"novelty": ` + strings.Repeat(`[`, 1<<20), "exceeded max depth"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Decode(gvk("apps/v1", "Deployment"), []byte(tc.data))
			switch {
			case tc.want == "" && err != nil:
				t.Error(err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("got error %v, want one with %q", err, tc.want)
			case tc.want != "" && !strings.HasPrefix(err.Error(), "decode Deployment: "):
				t.Errorf("error %q does not say what was decoded", err)
			}
		})
	}
}

func TestDecodeUnknownKinds(t *testing.T) {
	for _, unknown := range []schema.GroupVersionKind{
		gvk("apps/v1beta1", "Deployment"), gvk("v1", "Deployment"), gvk("apps/v1", "deployment"), gvk("argoproj.io/v1alpha1", "Rollout"),
	} {
		if Understands(unknown) {
			t.Errorf("%s is understood", unknown)
		}
		_, err := Decode(unknown, []byte(`{}`))
		if err == nil || !strings.Contains(err.Error(), "apps/v1 Deployment") {
			t.Errorf("%s: error %v does not say what is understood", unknown, err)
		}
	}
}

package workload

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestContainersReachesEveryContainer puts a container wherever the API's type of a Pod has room for one. A list that a
// newer API adds is found here without anybody having to think of it.
func TestContainersReachesEveryContainer(t *testing.T) {
	var spec corev1.PodSpec
	want := map[string]bool{}
	fill(reflect.ValueOf(&spec).Elem(), "spec", func(path string, container reflect.Value) {
		container.FieldByName("Image").SetString(path)
		want[path] = true
	})
	if len(want) < 3 {
		t.Fatalf("found %v; there are at least init, ordinary and ephemeral containers", want)
	}
	template := &Template{Spec: &spec, Meta: nil}
	for _, c := range template.Containers() {
		if !want[c.Image] {
			t.Errorf("%s is visited twice or is not what it says", c.Path())
		}
		if c.Path() != c.Image {
			t.Errorf("path %q, want %q", c.Path(), c.Image)
		}
		delete(want, c.Image)
	}
	for path := range want {
		t.Errorf("%s is not visited", path)
	}
}

// fill makes one element in every list below v and calls found for each struct that has an image and a command.
func fill(v reflect.Value, path string, found func(string, reflect.Value)) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.Type().Elem().Kind() == reflect.Struct {
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), path, found)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), path+"[0]", found)
	case reflect.Struct:
		if v.FieldByName("Image").IsValid() && v.FieldByName("Command").IsValid() {
			found(path, v)
			return
		}
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			below := path
			if name != "" {
				below = path + "." + name
			}
			if v.Field(i).CanSet() {
				fill(v.Field(i), below, found)
			}
		}
	}
}

// TestContainersAreTheTemplatesOwn holds for ephemeral containers too, which are viewed through another type.
func TestContainersAreTheTemplatesOwn(t *testing.T) {
	spec := &corev1.PodSpec{
		InitContainers: make([]corev1.Container, 2),
		Containers:     make([]corev1.Container, 1),
		EphemeralContainers: []corev1.EphemeralContainer{{
			EphemeralContainerCommon: corev1.EphemeralContainerCommon{
				Name: "debugger", SecurityContext: &corev1.SecurityContext{},
				VolumeMounts: []corev1.VolumeMount{{Name: "v"}}, TerminationMessagePath: "/m",
			},
		}},
	}
	var got []string
	for _, c := range (&Template{Path: "spec.template", Spec: spec}).Containers() {
		c.Image = "changed"
		got = append(got, fmt.Sprint(c.Sort, " ", c.Path()))
	}
	want := []string{
		"0 spec.template.spec.initContainers[0]", "0 spec.template.spec.initContainers[1]",
		"1 spec.template.spec.containers[0]", "2 spec.template.spec.ephemeralContainers[0]",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if spec.InitContainers[1].Image != "changed" || spec.Containers[0].Image != "changed" ||
		spec.EphemeralContainers[0].Image != "changed" {
		t.Error("a change of what is visited does not change the template")
	}
	debugger := (&Template{Spec: spec}).Containers()[3]
	if debugger.Name != "debugger" || debugger.SecurityContext == nil || debugger.VolumeMounts[0].Name != "v" ||
		debugger.TerminationMessagePath != "/m" {
		t.Errorf("the view of the ephemeral container lacks something: %+v", debugger.Container)
	}
}

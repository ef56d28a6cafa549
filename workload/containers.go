package workload

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// Sort tells the sorts of containers in a Pod apart. Rules differ by it where the API does.
type Sort int

// The sorts of containers. An init container with restartPolicy Always is Init.
const (
	Init Sort = iota
	Ordinary
	Ephemeral
)

// Container is one container of a template and where it stands.
type Container struct {
	*corev1.Container
	Sort Sort

	template *Template
	index    int
}

// Path leads from the object's root to the container, such as spec.template.spec.containers[0].
func (c Container) Path() string {
	list := [...]string{Init: "spec.initContainers", Ordinary: "spec.containers", Ephemeral: "spec.ephemeralContainers"}[c.Sort]
	return fmt.Sprintf("%s[%d]", c.template.Field(list), c.index)
}

// Containers returns every container of the template: init, ordinary, ephemeral. The fields that an ephemeral
// container has in common with others are viewed through the same type. The containers are the template's own: a
// change is a change of the template.
func (t *Template) Containers() []Container {
	spec := t.Spec
	all := make([]Container, 0, len(spec.InitContainers)+len(spec.Containers)+len(spec.EphemeralContainers))
	for i := range spec.InitContainers {
		all = append(all, Container{&spec.InitContainers[i], Init, t, i})
	}
	for i := range spec.Containers {
		all = append(all, Container{&spec.Containers[i], Ordinary, t, i})
	}
	for i := range spec.EphemeralContainers {
		common := (*corev1.Container)(&spec.EphemeralContainers[i].EphemeralContainerCommon)
		all = append(all, Container{common, Ephemeral, t, i})
	}
	return all
}

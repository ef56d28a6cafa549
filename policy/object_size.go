package policy

import (
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// How much a verdict costs depends on how many containers, volumes and variables a template lists: three bytes of JSON are
// a container, about which six rules have something to say. So their number is bounded before any other rule looks.
// No agent needs so many.
var objectSize = Rule{
	ID:          "object-size",
	Summary:     "a Pod template lists a bounded number of containers, volumes, variables and mounts",
	enforcement: func(r *v1alpha1.Rules) v1alpha1.Enforcement { return r.ObjectSize.Enforcement },
	decisive:    true,
	applies:     podsChange,
	check:       checkObjectSize,
}

func checkObjectSize(p *Profile, r *Request) []Violation {
	rule, template := p.file.Rules.ObjectSize, r.Object.Template
	containers := template.Containers()
	var env, mounts int
	for _, c := range containers {
		env += len(c.Env) + len(c.EnvFrom)
		mounts += len(c.VolumeMounts)
	}
	var found []Violation
	for _, list := range []struct {
		field, what string
		count       int
		most        int32
	}{
		{"spec.containers", "containers, counting init and ephemeral ones", len(containers), *rule.MaxContainers},
		{"spec.volumes", "volumes", len(template.Spec.Volumes), *rule.MaxVolumes},
		{"spec.containers[*].env", "entries of env and envFrom in all containers", env, *rule.MaxEnv},
		{"spec.containers[*].volumeMounts", "volumeMounts in all containers", mounts, *rule.MaxVolumeMounts},
	} {
		if list.count > int(list.most) {
			found = append(found, violation(template.Field(list.field), "there are %d %s; at most %d are allowed",
				list.count, list.what, list.most))
		}
	}
	return found
}

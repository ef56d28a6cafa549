package inject_test

import (
	"math/rand/v2"
	"testing"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// generator makes the JSON of Deployments, well-typed and otherwise odd: absent, null and empty members, names of the
// system where they do not belong, names given twice, fields that nobody knows.
type generator struct{ *rand.Rand }

type object = map[string]any

func pick[T any](g *generator, values ...T) T { return values[g.IntN(len(values))] }

// maybe sets a member to one of the values, to null, or leaves it out.
func (g *generator) maybe(o object, key string, values ...any) {
	switch i := g.IntN(len(values) + 2); i {
	case 0:
	case 1:
		o[key] = nil
	default:
		o[key] = values[i-2]
	}
}

func (g *generator) deployment() object {
	spec := object{"selector": object{"matchLabels": object{"app": "alice"}}}
	g.maybe(spec, "replicas", 0, 1)
	g.maybe(spec, "strategy", object{}, object{"type": "Recreate"}, object{"type": "RollingUpdate"},
		object{"type": "RollingUpdate", "rollingUpdate": object{"maxSurge": "25%"}})
	template := object{"spec": g.pod()}
	g.maybe(template, "metadata", object{}, g.metadata(), g.metadata(), object{"creationTimestamp": nil})
	spec["template"] = template
	metadata := g.metadata()
	metadata["name"] = "alice"
	return object{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec, "novelty": object{"a": 1.50}}
}

func (g *generator) metadata() object {
	m := object{}
	g.maybe(m, "labels", object{}, object{"a~b/c": "d"}, object{lifecycle.LabelDeployment: "bob"},
		object{lifecycle.LabelUserType: pick(g, "free", "paid", "enterprise", "premium", "")})
	g.maybe(m, "annotations", object{}, object{lifecycle.AnnotationAgentContainer: g.containerName()}, object{"x/y": "~"})
	return m
}

func (g *generator) pod() object {
	spec := object{"novelty": g.IntN(10)}
	g.maybe(spec, "enableServiceLinks", true, false)
	g.maybe(spec, "shareProcessNamespace", true, false)
	g.maybe(spec, "serviceAccountName", "", "other")
	g.maybe(spec, "automountServiceAccountToken", true, false)
	g.maybe(spec, "securityContext", object{}, g.securityContext(), object{"fsGroup": 1})
	g.maybe(spec, "initContainers", []any{}, []any{g.container()})
	g.maybe(spec, "volumes", []any{}, []any{g.volume()}, []any{g.volume(), g.volume(), g.volume()})
	containers := []any{}
	for range g.IntN(4) {
		containers = append(containers, g.container())
	}
	g.maybe(spec, "containers", containers, containers, containers, containers)
	return spec
}

func (g *generator) containerName() string {
	return pick(g, lifecycle.AgentContainer, "worker", "web", lifecycle.SidecarContainer)
}

func (g *generator) container() object {
	c := object{"name": g.containerName(), "image": pick(g, "a", sidecarImage, olderSidecar), "novelty": []any{nil}}
	g.maybe(c, "env", []any{}, []any{g.env()}, []any{g.env(), g.env(), g.env()})
	g.maybe(c, "volumeMounts", []any{}, []any{g.mount()}, []any{g.mount(), g.mount()})
	g.maybe(c, "securityContext", object{}, g.securityContext(), g.securityContext())
	g.maybe(c, "restartPolicy", "Always", "Never")
	g.maybe(c, "restartPolicyRules", []any{}, []any{object{"action": "Restart"}})
	g.maybe(c, "resources", object{"limits": object{"cpu": "0.50", "memory": "1e3"}})
	return c
}

func (g *generator) env() object {
	name := pick(g, lifecycle.EnvUserType, lifecycle.EnvIdleTimeoutMinutes, lifecycle.EnvEnableIdleShutdown, lifecycle.EnvActivityKey, "A", "B")
	e := object{"name": name, "novelty": nil}
	g.maybe(e, "value", "", "1", "true")
	return e
}

func (g *generator) mount() object {
	m := object{
		"name":      pick(g, lifecycle.RunVolume, lifecycle.TokenVolume, "data"),
		"mountPath": pick(g, lifecycle.RunDir, lifecycle.RunDir+"/", "/data"),
	}
	g.maybe(m, "readOnly", true, false)
	g.maybe(m, "subPath", "", "a")
	return m
}

func (g *generator) volume() object {
	v := object{"name": pick(g, lifecycle.RunVolume, lifecycle.TokenVolume, "data")}
	g.maybe(v, pick(g, "emptyDir", "novelty"), object{}, object{"sizeLimit": "1048576"}, object{"sizeLimit": "1Mi"})
	return v
}

func (g *generator) securityContext() object {
	s := object{}
	g.maybe(s, "runAsUser", 0, 1000, 64042)
	g.maybe(s, "runAsNonRoot", true, false)
	g.maybe(s, "readOnlyRootFilesystem", true, false)
	g.maybe(s, "privileged", true, false)
	g.maybe(s, "allowPrivilegeEscalation", true, false)
	g.maybe(s, "seccompProfile", object{"type": "Unconfined"})
	g.maybe(s, "capabilities", object{}, object{"add": []any{"SYS_ADMIN"}}, object{"drop": []any{}}, object{"drop": nil})
	return s
}

// damage takes something out of a stored Deployment, or changes it.
func (g *generator) damage(t *testing.T, stored []byte) []byte {
	t.Helper()
	d := tree(t, stored).(object)
	template := d["spec"].(object)["template"].(object)
	pod := template["spec"].(object)
	switch g.IntN(6) {
	case 0:
		delete(pod, "volumes")
	case 1:
		pod["containers"] = []any{g.container(), g.container()}
	case 2:
		template["metadata"] = g.metadata()
	case 3:
		d["metadata"].(object)["labels"] = object{lifecycle.LabelUserType: "paid"}
	case 4:
		delete(d["spec"].(object), "strategy")
	case 5:
		pod["shareProcessNamespace"] = false
	}
	return marshal(t, d)
}

package inject

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/workload"
)

// activityEnv tells an agent by which key, and for whom, the gateway signs.
func activityEnv(publicKey string) []corev1.EnvVar {
	return []corev1.EnvVar{
		{Name: lifecycle.EnvActivityKey, Value: publicKey},
		fieldEnv(lifecycle.EnvActivityAudience, "metadata.uid"),
	}
}

// ActivityEnv returns the variables of the agent container that come with the gateway's key, with no value for the key
// itself. An agent may lack them: it was admitted before there was a key, or by a server that did not know it.
func ActivityEnv() []corev1.EnvVar { return activityEnv("") }

// HasActivityKey says whether an agent knows the gateway's key. It answers true where no container is the agent's.
func HasActivityKey(d *appsv1.Deployment) bool {
	i, err := workload.AgentContainer(&d.Spec.Template)
	return err != nil || envIndex(d.Spec.Template.Spec.Containers[i].Env, lifecycle.EnvActivityKey) >= 0
}

// withActivityKey returns the parts with the gateway's key. Without a key, as while the server has not read it yet, they
// have what a stored Deployment has.
func (p Parts) withActivityKey(publicKey string, stored *appsv1.Deployment) Parts {
	if len(p.AgentEnv) == 0 {
		return p // it is no user type, and nothing of a tier is injected
	}
	var env []corev1.EnvVar
	switch {
	case publicKey != "":
		env = activityEnv(publicKey)
	case stored != nil:
		env = storedActivityEnv(stored)
	}
	p.AgentEnv = append(slices.Clip(p.AgentEnv), env...)
	return p
}

// storedActivityEnv returns what a stored Deployment's agent container has of the variables.
func storedActivityEnv(stored *appsv1.Deployment) []corev1.EnvVar {
	agent, err := workload.AgentContainer(&stored.Spec.Template)
	if err != nil {
		return nil
	}
	var env []corev1.EnvVar
	for _, want := range ActivityEnv() {
		has := stored.Spec.Template.Spec.Containers[agent].Env
		if i := envIndex(has, want.Name); i >= 0 {
			env = append(env, has[i])
		}
	}
	return env
}

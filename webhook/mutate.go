package webhook

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/dexorder/agent-lifecycle/inject"
)

// mutate answers with what injection changes. It refuses nothing but what it cannot read.
func (a *Admission) mutate(_ context.Context, t *task) answer {
	object, old, err := t.objects()
	if err != nil {
		return fault(faultUndecodable, err)
	}
	var oldDeployment *appsv1.Deployment
	if old != nil {
		oldDeployment = old.Deployment
	}
	options := inject.Options{RestartRules: a.RestartRules.Kept()}
	if a.ActivityKey != nil {
		options.ActivityKey = a.ActivityKey()
	}
	return patched(t.policy.Inject(t.Namespace, object.Deployment, oldDeployment, options))
}

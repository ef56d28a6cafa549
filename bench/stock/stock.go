// Package stock does what the admission server does in the way that controller-runtime documents: a Defaulter and a
// Validator over typed objects. What is injected and judged is the same code, inject and policy; decoding, diffing and
// encoding are controller-runtime's.
package stock

import (
	"context"
	"errors"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/dexorder/agent-lifecycle/inject"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/workload"
)

// Webhooks returns the webhooks for a policy file's bytes.
func Webhooks(policyFile []byte) (mutate, validate *admission.Webhook, err error) {
	file, err := v1alpha1.Decode(policyFile)
	if err != nil {
		return nil, nil, err
	}
	p, err := policy.New(file)
	if err != nil {
		return nil, nil, err
	}
	scheme := runtime.NewScheme()
	if err := appsv1.AddToScheme(scheme); err != nil {
		return nil, nil, err
	}
	mutate = admission.WithDefaulter[*appsv1.Deployment](scheme, defaulter{p})
	return mutate, admission.WithValidator[*appsv1.Deployment](scheme, validator{p}), nil
}

type defaulter struct{ policy *policy.Policy }

// Default implements admission.Defaulter. The patch that inject returns goes unused: controller-runtime makes its own,
// of the difference.
func (w defaulter) Default(_ context.Context, d *appsv1.Deployment) error {
	if injector := w.policy.Injector(d.Namespace); injector != nil {
		injector.Deployment(d, nil, inject.Options{RestartRules: true})
	}
	return nil
}

type validator struct{ policy *policy.Policy }

// ValidateCreate implements admission.Validator. Of the cluster it is told that no claim exists, where the real server
// asks its cache.
func (w validator) ValidateCreate(ctx context.Context, d *appsv1.Deployment) (admission.Warnings, error) {
	in, err := admission.RequestFromContext(ctx)
	if err != nil {
		return nil, err
	}
	r := &policy.Request{
		Operation: in.Operation, Namespace: in.Namespace, Name: in.Name, User: in.UserInfo,
		Object: workload.FromDeployment(d),
	}
	r.Facts = NoClaims(w.policy.Needs(r))
	verdict := w.policy.Review(r)
	var warnings admission.Warnings
	for _, v := range verdict.Warnings {
		warnings = append(warnings, v.String())
	}
	if !verdict.Allowed() {
		return warnings, errors.New(verdict.Message())
	}
	return warnings, nil
}

// ValidateUpdate implements admission.Validator; nothing is updated in the benchmarks.
func (validator) ValidateUpdate(context.Context, *appsv1.Deployment, *appsv1.Deployment) (admission.Warnings, error) {
	return nil, errors.New("updates are not benchmarked")
}

// ValidateDelete implements admission.Validator.
func (validator) ValidateDelete(context.Context, *appsv1.Deployment) (admission.Warnings, error) {
	return nil, nil
}

// NoClaims are the facts of a cluster in which no claim exists.
func NoClaims(needs policy.Needs) *policy.Facts {
	facts := &policy.Facts{Claims: make(map[string]policy.Claim, len(needs.Claims))}
	for _, name := range needs.Claims {
		facts.Claims[name] = policy.Claim{}
	}
	return facts
}

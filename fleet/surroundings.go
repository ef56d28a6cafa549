package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/workload"
)

// objectKey is an object's namespace and name.
type objectKey struct{ namespace, name string }

// surroundings are what beside its own Deployment and Pods decides whether an agent stays.
type surroundings struct {
	// protected says why a claim must stay, by claim.
	protected map[objectKey]string

	// scalers names the HorizontalPodAutoscaler of a Deployment, by Deployment.
	scalers map[objectKey]string
}

// surroundings reads them in one namespace, or in all if that is empty. unread lists what the caller may not read: it
// is then as if there were none.
func (c *Cluster) surroundings(ctx context.Context, namespace string, now time.Time) (s *surroundings, unread []string, err error) {
	s = &surroundings{protected: map[objectKey]string{}, scalers: map[objectKey]string{}}
	optional := func(what string, err error) error {
		if apierrors.IsForbidden(err) {
			unread = append(unread, fmt.Sprintf("%s: %v", what, err))
			return nil
		}
		return err
	}
	err = optional("whether claims are protected is not shown", c.eachMetadata(ctx, claims, namespace, "", func(m *metav1.PartialObjectMetadata) error {
		if why := lifecycle.ProtectionOf(m, now); why != "" {
			s.protected[objectKey{m.Namespace, m.Name}] = why
		}
		return nil
	}))
	if err != nil {
		return nil, nil, err
	}
	err = optional("which autoscalers there are is not shown", c.eachWhole(ctx, autoscalers, namespace, func(data []byte) error {
		var a autoscalingv2.HorizontalPodAutoscaler
		if err := json.Unmarshal(data, &a); err != nil {
			return fmt.Errorf("list %s%s: %w", autoscalers.plural, inNamespace(namespace), err)
		}
		if target := a.Spec.ScaleTargetRef; target.Kind == deployments.gvk.Kind && a.DeletionTimestamp == nil {
			s.scalers[objectKey{a.Namespace, target.Name}] = a.Name
		}
		return nil
	}))
	return s, unread, err
}

// scalerOf names what else sets the replicas of a Deployment; empty if nothing is known to.
func (s *surroundings) scalerOf(d *appsv1.Deployment) string {
	if name, has := s.scalers[objectKey{d.Namespace, d.Name}]; has {
		return autoscalers.gvk.Kind + " " + name
	}
	return workload.ScaledBy(&d.ObjectMeta)
}

// protectedClaim returns why a claim that a Deployment mounts must stay; empty if none is protected.
func (s *surroundings) protectedClaim(d *appsv1.Deployment) string {
	for _, name := range workload.Claims(&d.Spec.Template.Spec) {
		if why := s.protected[objectKey{d.Namespace, name}]; why != "" {
			return fmt.Sprintf("claim %s: %s", name, why)
		}
	}
	return ""
}

package reaper

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// orphan says what becomes of an object that may belong to nobody any more.
type orphan struct {
	goes   bool
	reason string

	// since is what AnnotationOrphanedSince has to say: when it was first seen so; "" if it is not.
	since string

	// next is when the decision may change by itself; zero if only a change of something can.
	next time.Time
}

// decideOrphanedClaim says what becomes of an agent's claim. It goes if its own label says that its user type deletes storage, and its
// Deployment has been gone for After, counted from when a reaper first saw it so.
func decideOrphanedClaim(c *claim, deployed bool, mounted bool, policy *v1alpha1.LifecyclePolicy, now time.Time) orphan {
	userType, has := c.labels[lifecycle.LabelUserType]
	switch {
	case c.deleting:
		return orphan{reason: "it is being deleted", since: c.orphanedSince}
	case !has || keepsStorage(policy, userType):
		return orphan{reason: "its user type keeps storage"}
	case deployed:
		return orphan{reason: "its agent is there"}
	case mounted:
		return orphan{reason: "another workload mounts it"}
	case lifecycle.Protection(c.protected, now) != "":
		return orphan{reason: "it is protected"}
	}
	return waitAsOrphan(c.orphanedSince, c.created, policy.Reaper.Claims.After.Duration, now, "its user type deletes storage, and its agent has gone")
}

// waitAsOrphan lets an orphan go once it has been seen as one for long enough. A time that makes no sense begins anew.
func waitAsOrphan(since string, created time.Time, patience time.Duration, now time.Time, reason string) orphan {
	at, err := time.Parse(time.RFC3339, since)
	if err != nil || at.After(now) || at.Before(created) {
		at, since = now, now.UTC().Format(time.RFC3339)
	}
	if left := at.Add(patience).Sub(now); left > 0 {
		return orphan{reason: "it has not been an orphan for long enough", since: since, next: now.Add(left)}
	}
	return orphan{goes: true, reason: reason + "; seen so since " + since, since: since}
}

// passClaims deletes claims that storage-deleting agents left behind.
func (w *worker) passClaims(ctx context.Context) Result {
	file := w.Policy.File()
	mode := w.mode(file.Reaper.Claims.Mode)
	result := Result{Reaper: "claims", Mode: string(mode)}
	if mode == v1alpha1.ReaperOff {
		return result
	}
	now := w.Now()
	type decided struct {
		*claim
		orphan
	}
	var candidates, changed []decided
	failed := ""
	w.inventory.each(func(p *place) {
		mounted := p.mounted()
		for _, c := range p.claims {
			name := c.labels[lifecycle.LabelDeployment]
			if name == "" || !covers(file, c.namespace) {
				continue
			}
			result.Examined++
			o := decideOrphanedClaim(c, p.workloads["Deployment/"+name] != nil, mounted[c.name], file, now)
			switch {
			case o.goes:
				candidates = append(candidates, decided{c, o})
				continue
			case o.since != c.orphanedSince:
				changed = append(changed, decided{c, o})
			}
			result.keep(o.reason)
		}
	})
	if !w.DryRun {
		for _, c := range changed {
			err := noteOrphan(ctx, w.client.CoreV1().RESTClient(), "persistentvolumeclaims", &c.claim.object, c.since)
			switch {
			case apierrors.IsForbidden(err): // a role agent's namespace that has not granted it
				w.say(ctx, &result, Decision{
					Kind: "PersistentVolumeClaim", Namespace: c.namespace, Name: c.name, Verdict: "kept", Reason: err.Error(),
				}, false)
			case err != nil:
				failed = cmp.Or(failed, fmt.Sprintf("claim %s/%s: %v", c.namespace, c.name, err))
			}
		}
	}
	w.reapEach(ctx, &result, mode, len(candidates), func(i int) (Decision, func(context.Context) error) {
		c := candidates[i]
		return Decision{Kind: "PersistentVolumeClaim", Namespace: c.namespace, Name: c.name, Reason: c.reason, uid: c.uid},
			func(ctx context.Context) error { return w.deleteClaim(ctx, c.claim) }
	})
	result.Error = cmp.Or(result.Error, failed)
	return result
}

// mounted are the claims that a workload's template, or a Pod, mounts.
func (p *place) mounted() map[string]bool {
	claims := map[string]bool{}
	for _, w := range p.workloads {
		for _, c := range w.claims {
			claims[c] = true
		}
	}
	for _, pod := range p.pods {
		for _, c := range pod.claims {
			claims[c] = true
		}
	}
	return claims
}

// noteOrphan writes since when an object belongs to nobody, or takes that off.
func noteOrphan(ctx context.Context, client rest.Interface, resource string, o *object, since string) error {
	var value *string
	if since != "" {
		value = &since
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": o.uid, "resourceVersion": o.resourceVersion, "annotations": map[string]*string{lifecycle.AnnotationOrphanedSince: value},
	}})
	if err != nil {
		return err
	}
	err = client.Patch(types.MergePatchType).Namespace(o.namespace).Resource(resource).Name(o.name).Body(patch).Do(ctx).Error()
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // the next pass sees what has changed
	}
	return err
}

// deleteClaim decides once more, by what the API server says now. What mounts a claim is not asked anew of every workload there: the
// watches tell, and admission lets no other workload of user agents mount it.
//
// An agent that is created between the look and the deletion is not always seen: the claim itself need not have changed. Then its Pod
// finds no claim, or one that is on its way out, and waits until there is a new one, which is what a user type that deletes storage
// has promised. Whoever writes to the claim meanwhile, as a gateway does that brings it back, makes the deletion fail.
func (w *worker) deleteClaim(ctx context.Context, c *claim) error {
	live, err := w.client.CoreV1().PersistentVolumeClaims(c.namespace).Get(ctx, c.name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	now := &claim{dependentOf(&live.ObjectMeta)}
	name := now.labels[lifecycle.LabelDeployment]
	if now.uid != c.uid || name != c.labels[lifecycle.LabelDeployment] {
		return kept("it is another claim by now")
	}
	switch _, err := w.client.AppsV1().Deployments(c.namespace).Get(ctx, name, metav1.GetOptions{}); {
	case err == nil:
		return kept("its agent is there")
	case !apierrors.IsNotFound(err):
		return err
	}
	pods, err := w.client.CoreV1().Pods(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: lifecycle.LabelDeployment + "=" + name, Limit: 1})
	switch {
	case err != nil:
		return err
	case whole(pods) != nil:
		return whole(pods)
	case len(pods.Items) > 0:
		return kept("Pod %s of its agent is there", pods.Items[0].Name)
	}
	mounted := false
	w.inventory.look(c.namespace, func(p *place) { mounted = p.mounted()[c.name] })
	if o := decideOrphanedClaim(now, false, mounted, w.Policy.File(), w.Now()); !o.goes {
		return kept("%s", o.reason)
	}
	return w.client.CoreV1().PersistentVolumeClaims(c.namespace).Delete(ctx, c.name, preconditions(&now.object))
}

package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/singleflight"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

const (
	// retryEvery is how soon it is looked again whether an old Deployment has gone, should its watch not say so first.
	retryEvery = 500 * time.Millisecond

	// retrySoon is after somebody else was faster.
	retrySoon = 50 * time.Millisecond

	// finishTimeout is what an attempt under way gets to end when the gateway stops.
	finishTimeout = 2 * time.Second

	// readTimeoutAPI bounds one reading of the API server.
	readTimeoutAPI = 10 * time.Second
)

// again is why an attempt has to be made anew.
type again struct {
	why   string
	after time.Duration
}

func (a *again) Error() string { return a.why }

// brought is what ensure found or made.
type brought struct {
	deployment *appsv1.Deployment
	created    bool
}

// ensure makes a user's agent what is asked for. A nil request brings back one that has been before, as it was. Callers with the
// same wish share one attempt, which goes on when one of them has hung up.
func (g *Gateway) ensure(ctx context.Context, user string, r *Request) (*brought, error) {
	key, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	for began := g.options.Now(); ; {
		shared := g.flights.DoChan(Name(user)+" "+string(key), func() (any, error) {
			work, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.options.WakeTimeout)
			defer cancel()
			return g.bring(work, user, r)
		})
		result, err := g.await(ctx, shared)
		switch {
		case err != nil:
			return nil, err
		case result.Err == nil:
			return result.Val.(*brought), nil
		case errors.Is(result.Err, errTime) && g.options.Now().Sub(began) < g.options.WakeTimeout/2:
			continue // another request of this agent's user began the work, and its time is over
		}
		return nil, result.Err
	}
}

// await waits for the result of an attempt. One that is under way when the gateway stops gets a moment to end.
func (g *Gateway) await(ctx context.Context, shared <-chan singleflight.Result) (result singleflight.Result, err error) {
	select {
	case result = <-shared:
		return result, nil
	case <-ctx.Done():
		return result, fmt.Errorf("%w: %w", errTime, ctx.Err())
	case <-g.draining:
	}
	select {
	case result = <-shared:
		return result, nil
	case <-ctx.Done():
		return result, fmt.Errorf("%w: %w", errTime, ctx.Err())
	case <-time.After(finishTimeout):
		return result, errStopping
	}
}

// ensureHeld is ensure for callers who wait: while the API server is away it is tried again, for as long as the gateway holds a
// request.
func (g *Gateway) ensureHeld(ctx context.Context, user string, r *Request) (*brought, error) {
	for began := g.options.Now(); ; {
		b, err := g.ensure(ctx, user, r)
		if !isAway(err) || g.options.Now().Sub(began) >= g.options.WakeTimeout {
			return b, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-g.draining:
			return nil, errStopping
		case <-time.After(awayEvery):
		}
	}
}

func (g *Gateway) bring(ctx context.Context, user string, r *Request) (*brought, error) {
	changed, cancel := g.fleet.listen(Name(user))
	defer cancel()
	created := false
	for {
		b, err := g.attempt(ctx, user, r)
		created = created || b != nil && b.created
		var retry *again
		switch {
		case err == nil:
			b.created = created
			return b, nil
		case errors.As(err, &retry):
		case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
			retry = &again{"somebody else changes it", retrySoon}
		case ctx.Err() != nil:
			g.options.Logger.Info("An agent was not made in time", "user", user, "error", err)
			return nil, fmt.Errorf("%w: it is still being made", errTime)
		case isTransient(err):
			return nil, &awayError{"the agent cannot be looked up or made", err}
		default:
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %s", errTime, retry.why)
		case <-changed:
		case <-time.After(retry.after):
		}
	}
}

// attempt looks at what there is and makes one round of creates and updates. What it returns beside an error says what it had made.
func (g *Gateway) attempt(ctx context.Context, user string, r *Request) (*brought, error) {
	name := Name(user)
	deployments := g.options.Client.AppsV1().Deployments(g.options.Namespace)
	claims := g.options.Client.CoreV1().PersistentVolumeClaims(g.options.Namespace)
	reading, cancel := context.WithTimeout(ctx, readTimeoutAPI)
	defer cancel()
	d, err := found(deployments.Get(reading, name, metav1.GetOptions{}))
	if err != nil {
		return nil, err
	}
	claim, err := found(claims.Get(reading, claimName(name), metav1.GetOptions{}))
	if err != nil {
		return nil, err
	}
	w, err := g.decideWant(user, r, d, claim)
	if err != nil {
		return nil, err
	}
	fresh, err := g.options.Template.render(name)
	if err != nil {
		return nil, err
	}
	// First of all: from here on nothing takes storage along that is to be kept.
	if claim != nil {
		if c := w.changedClaim(claim, nil); c != nil {
			if claim, err = claims.Update(ctx, c, metav1.UpdateOptions{}); err != nil {
				return nil, retried(err)
			}
		}
	}
	b := &brought{}
	if d == nil {
		if err := g.limiter.wake(ctx, w.userType); err != nil {
			return nil, err
		}
		if d, err = deployments.Create(ctx, w.newDeployment(fresh.deployment), metav1.CreateOptions{}); err != nil {
			return nil, err
		}
		b.created = true
		g.options.Metrics.created(w.userType)
		g.options.Logger.Info("Created an agent", "user", user, "deployment", name, "userType", w.userType, "storage", claim != nil)
	} else if changed := w.mendedDeployment(d, fresh.deployment, g.fleet.podOf(name), g.options.Now()); changed != nil {
		if d, err = deployments.Update(ctx, changed, metav1.UpdateOptions{}); err != nil {
			return nil, retried(err)
		}
		g.options.Logger.Info("Changed an agent", "user", user, "deployment", name, "userType", w.userType, "template", originOf(d).template)
	}
	b.deployment = d
	if err := g.complete(ctx, w, d, claim, fresh); err != nil {
		return b, err
	}
	return b, nil
}

// complete makes what goes with a Deployment.
func (g *Gateway) complete(ctx context.Context, w *want, d *appsv1.Deployment, claim *corev1.PersistentVolumeClaim, fresh *objects) error {
	claims := g.options.Client.CoreV1().PersistentVolumeClaims(g.options.Namespace)
	services := g.options.Client.CoreV1().Services(g.options.Namespace)
	if claim == nil {
		if _, err := claims.Create(ctx, w.newClaim(fresh.claim, d), metav1.CreateOptions{}); err != nil {
			return err
		}
	} else if c := w.changedClaim(claim, d); c != nil {
		if _, err := claims.Update(ctx, c, metav1.UpdateOptions{}); err != nil {
			return retried(err)
		}
	}
	service, err := found(services.Get(ctx, w.name, metav1.GetOptions{}))
	switch {
	case err != nil:
		return err
	case service == nil:
		_, err = services.Create(ctx, w.newService(fresh.service, d), metav1.CreateOptions{})
		return err
	case service.DeletionTimestamp != nil:
		return &again{"its Service is being deleted", retryEvery}
	}
	if s := w.changedService(service, d); s != nil {
		_, err = services.Update(ctx, s, metav1.UpdateOptions{})
		return retried(err)
	}
	return nil
}

// decideWant says what an agent should be, given what there is of it.
func (g *Gateway) decideWant(user string, r *Request, d *appsv1.Deployment, claim *corev1.PersistentVolumeClaim) (*want, error) {
	w := &want{name: Name(user), user: user, template: g.options.Template.hash}
	var types []lifecycle.UserType // that it has now
	if claim != nil {
		if claim.Annotations[lifecycle.AnnotationUser] != escapeUser(user) {
			return nil, fmt.Errorf("%w: PersistentVolumeClaim %s has annotation %s %q", errForeign, claim.Name,
				lifecycle.AnnotationUser, claim.Annotations[lifecycle.AnnotationUser])
		}
		w.asked = recall(claim.Annotations)
		types = append(types, lifecycle.UserType(claim.Labels[lifecycle.LabelUserType]))
	}
	if d != nil {
		if d.Annotations[lifecycle.AnnotationUser] != escapeUser(user) {
			return nil, fmt.Errorf("%w: Deployment %s has annotation %s %q", errForeign, d.Name,
				lifecycle.AnnotationUser, d.Annotations[lifecycle.AnnotationUser])
		}
		w.asked = recall(d.Annotations)
		types = append(types, lifecycle.UserType(d.Labels[lifecycle.LabelUserType]))
	}
	switch {
	case d != nil && d.DeletionTimestamp != nil:
		return nil, &again{"its old Deployment is still being deleted", retryEvery}
	case d == nil && claim != nil && claim.DeletionTimestamp != nil:
		return nil, &again{"its old storage is still being deleted", retryEvery}
	case r == nil && len(types) == 0:
		return nil, errNoAgent
	}
	w.userType = g.options.DefaultUserType
	if len(types) > 0 {
		w.userType = types[len(types)-1] // the Deployment is the authority
	}
	if r != nil {
		w.asked = w.asked.with(r)
		if r.UserType != "" {
			w.userType = r.UserType
		}
	}
	w.deletes = g.options.Tiers.DeletesStorage(w.userType)
	for _, has := range types {
		if w.deletes && !g.options.Tiers.DeletesStorage(has) {
			if r == nil || r.UserType == "" {
				// The claim was promised more than the Deployment says: it keeps what it was promised.
				w.userType, w.deletes = has, false
				continue
			}
			return nil, fmt.Errorf("%w: from %q, which keeps storage, to %q, which deletes it", errTier, has, w.userType)
		}
	}
	return w, nil
}

// found makes nil of what there is not.
func found[T any](object *T, err error) (*T, error) {
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return object, err
}

// scaledToZero says whether the agent is stopped by its replicas, which the gateway never changes.
func scaledToZero(d *appsv1.Deployment) bool { return d.Spec.Replicas != nil && *d.Spec.Replicas == 0 }

// retried makes another attempt of an update of what has gone meanwhile.
func retried(err error) error {
	if apierrors.IsNotFound(err) {
		return &again{"it has just gone", retrySoon}
	}
	return err
}

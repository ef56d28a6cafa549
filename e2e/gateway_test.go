//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// TestGateway: users are connected with agents that are made for them, go when they are idle, and come back.
func TestGateway(t *testing.T) {
	t.Parallel()
	f := startFrontend(t)
	for _, promise := range []struct {
		name string
		keep func(*testing.T, *frontend, string)
	}{
		{"callers", callersAreKnown},
		{"back", userComesBack},
		{"together", usersTogether},
		{"neighbours", neighboursAreNotTold},
		{"anonymous", anonymousUserLeavesNothing},
		{"held", connectionIsHeld},
		{"upgrade", upgradeKeepsFiles},
		{"events", eventsTellTheLife},
	} {
		t.Run(promise.name, func(t *testing.T) {
			t.Parallel()
			promise.keep(t, f, promise.name+"@example.com")
		})
	}
}

// Only a token of somebody who is allowed, made for the gateway, lets a caller in.
func callersAreKnown(t *testing.T, f *frontend, id string) {
	u := newUser(t, f, id)
	for _, tt := range []struct {
		name, show string
		code       int
	}{
		{"no token", "", http.StatusUnauthorized},
		{"no sense", "Bearer nonsense", http.StatusUnauthorized},
		{"a token for the API server", tokenOf(t, "frontend", "https://kubernetes.default.svc.cluster.local"), http.StatusUnauthorized},
		{"a stranger", tokenOf(t, "stranger", gatewayAudience), http.StatusForbidden},
		{"the frontend", tokenOf(t, "frontend", gatewayAudience), http.StatusOK},
		{"the frontend's own token", own, http.StatusOK},
	} {
		for _, method := range []string{http.MethodPut, http.MethodGet} {
			if method == http.MethodPut && tt.code == http.StatusOK {
				continue // nobody is to be made here
			}
			a, err := f.ask(t.Context(), tt.show, method, u.path(""), "")
			if err != nil {
				t.Fatal(err)
			}
			if a.code != tt.code {
				t.Errorf("%s: %s is answered with %d %s, want %d", tt.name, method, a.code, a.body, tt.code)
			}
		}
	}
	if s := u.status(); s.State != lifecycle.Deleted || s.Storage != "none" {
		t.Errorf("an agent was made for somebody who may not call: %+v", s)
	}
}

// A user works, goes, and finds it all again: the agent has ended meanwhile, and a connection brings it back.
func userComesBack(t *testing.T, f *frontend, id string) {
	u := newUser(t, f, id)
	u.put(http.StatusCreated, lifecycle.Paid, 240) // of 60 minutes, 15 seconds
	u.save("work of days")
	if s := u.status(); !s.Ready || s.State != lifecycle.Running && s.State != lifecycle.Idle || s.UserType != lifecycle.Paid {
		t.Errorf("the agent that was connected is %+v", s)
	}
	claim := u.claim()
	u.expectGone()
	if s := u.status(); s.State != lifecycle.Deleted || s.Storage != "kept" || s.UserType != lifecycle.Paid {
		t.Errorf("the agent that has gone is %+v", s)
	}
	u.expectFile("work of days")
	if again := u.claim(); again == nil || again.UID != claim.UID {
		t.Errorf("the storage is another: %+v", again)
	}
	d, err := client.AppsV1().Deployments(agentsNamespace).Get(t.Context(), u.name, metav1.GetOptions{})
	if err != nil || d.UID == u.deployment.UID || d.Labels[lifecycle.LabelUserType] != string(lifecycle.Paid) {
		t.Errorf("the agent has not come back as it was: %+v, %v", d, err)
	}
}

// Ten users at once, each impatient: one agent for each, and everything arrives once, with whom it is for.
func usersTogether(t *testing.T, f *frontend, id string) {
	const users, impatience = 10, 4
	all := make([]*user, users)
	pods := make([][impatience]string, users)
	var group sync.WaitGroup
	for i := range all {
		u := newUser(t, f, fmt.Sprintf("%d-%s", i, id))
		all[i] = u
		for j := range impatience {
			group.Go(func() {
				a, err := f.ask(t.Context(), own, http.MethodPut, u.path(""), `{"userType": "enterprise"}`)
				if err != nil || a.code != http.StatusOK && a.code != http.StatusCreated {
					t.Errorf("PUT of %s: %+v, %v", u.id, a, err)
					return
				}
				e, err := u.echo(t.Context(), fmt.Sprintf("%d.%d", i, j))
				if err != nil {
					t.Error(err)
					return
				}
				pods[i][j] = e.Pod
			})
		}
	}
	group.Wait()
	for i, u := range all {
		there, err := u.pods(t.Context())
		if err != nil || len(there) != 1 {
			t.Fatalf("%s has Pods %s, %v", u.id, describePods(there), err)
		}
		for j := range impatience {
			if pods[i][j] != there[0].Name {
				t.Errorf("request %d of %s reached %q, its Pod is %s", j, u.id, pods[i][j], there[0].Name)
			}
		}
		var seen map[string]int
		u.want(http.StatusOK, http.MethodGet, "/connect/seen", "").into(t, &seen)
		if len(seen) != impatience {
			t.Errorf("the agent of %s was sent %v", u.id, seen)
		}
		for j := range impatience {
			if seen[fmt.Sprintf("%d.%d", i, j)] != 1 {
				t.Errorf("request %d of %s arrived %d times", j, u.id, seen[fmt.Sprintf("%d.%d", i, j)])
			}
		}
	}
	list, err := client.AppsV1().Deployments(agentsNamespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range all {
		mine := 0
		for i := range list.Items {
			if list.Items[i].Name == u.name || list.Items[i].Annotations[lifecycle.AnnotationUser] == u.id {
				mine++
			}
		}
		if mine != 1 {
			t.Errorf("%s has %d Deployments", u.id, mine)
		}
	}
}

// Of an anonymous user nothing is left, and the next one of that name begins with nothing.
func anonymousUserLeavesNothing(t *testing.T, f *frontend, id string) {
	u := newUser(t, f, id)
	u.put(http.StatusCreated, lifecycle.Anonymous, 60)
	u.save("secret")
	u.expectGone()
	eventually(t, lifeTimeout, func(context.Context) error {
		if c := u.claim(); c != nil {
			return fmt.Errorf("the claim is there: %v", c.ObjectMeta)
		}
		return nil
	})
	if s := u.status(); s.State != lifecycle.Deleted || s.Storage != "none" {
		t.Errorf("the agent that has gone is %+v", s)
	}
	u.want(http.StatusNotFound, http.MethodGet, "/connect/data", "")
	u.put(http.StatusCreated, lifecycle.Anonymous, 60)
	if a := u.want(http.StatusNotFound, http.MethodGet, "/connect/data", ""); a.body != "open /data/kept: no such file or directory\n" {
		t.Errorf("the new agent finds %q", a.body)
	}
}

// A connection that comes while the old agent is still being deleted waits for that, and reaches the new one.
func connectionIsHeld(t *testing.T, f *frontend, id string) {
	u := newUser(t, f, id)
	u.put(http.StatusCreated, lifecycle.Free, 60)
	u.save("before")
	u.awaitRunning()
	old := u.pod.Name
	u.holdPod(old, true)
	t.Cleanup(func() { u.holdPod(old, false) })
	eventually(t, lifeTimeout, func(ctx context.Context) error {
		d, err := client.AppsV1().Deployments(agentsNamespace).Get(ctx, u.name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if d.DeletionTimestamp == nil || !slices.Contains(d.Finalizers, metav1.FinalizerDeleteDependents) {
			return fmt.Errorf("the agent is not in foreground deletion: %v", d.ObjectMeta)
		}
		return nil
	})
	if s := u.status(); s.State != lifecycle.Shutdown || s.Ready {
		t.Errorf("the agent that is being deleted is %+v", s)
	}
	const waiting = 3
	reached := make(chan *echoed, waiting)
	var group sync.WaitGroup
	for i := range waiting {
		group.Go(func() {
			e, err := u.echo(t.Context(), fmt.Sprint(i))
			if err != nil {
				t.Error(err)
			}
			reached <- e
		})
	}
	select {
	case e := <-reached:
		t.Fatalf("a connection did not wait: %+v", e)
	case <-time.After(3 * time.Second):
	}
	u.holdPod(old, false)
	group.Wait()
	if t.Failed() {
		return
	}
	for range waiting {
		if e := <-reached; e.Pod == old {
			t.Errorf("a connection reached the old agent: %+v", e)
		}
	}
	var seen map[string]int
	u.want(http.StatusOK, http.MethodGet, "/connect/seen", "").into(t, &seen)
	if len(seen) != waiting || seen["0"] != 1 || seen["1"] != 1 || seen["2"] != 1 {
		t.Errorf("the new agent was sent %v", seen)
	}
	u.expectFile("before")
}

// holdPod keeps a Pod in the API server while it is being deleted, or no longer.
func (u *user) holdPod(name string, hold bool) {
	u.t.Helper()
	patch := `{"metadata": {"finalizers": null}}`
	if hold {
		patch = `{"metadata": {"finalizers": ["example.com/hold"]}}`
	}
	_, err := client.CoreV1().Pods(agentsNamespace).Patch(context.WithoutCancel(u.t.Context()), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil && hold {
		u.t.Fatal(err)
	}
}

// Who pays keeps the files that an anonymous user would have lost, and the agent lives by the new user type.
func upgradeKeepsFiles(t *testing.T, f *frontend, id string) {
	u := newUser(t, f, id)
	u.put(http.StatusCreated, lifecycle.Anonymous, 20) // 45 seconds
	u.save("not to be lost")
	claim := u.claim()
	if len(claim.OwnerReferences) != 1 || claim.OwnerReferences[0].UID != u.deployment.UID {
		t.Errorf("the claim of an anonymous user is owned by %v", claim.OwnerReferences)
	}
	made := u.deployment.UID
	u.put(http.StatusOK, lifecycle.Paid, 90) // of 60 minutes, 40 seconds; of the old 15 it would be 10
	if u.deployment.UID != made || u.deployment.Labels[lifecycle.LabelUserType] != "paid" {
		t.Errorf("the Deployment is %s of %v", u.deployment.UID, u.deployment.Labels)
	}
	u.expectFile("not to be lost")
	last := time.Now()
	u.awaitRunning()
	if got := u.pod.Labels[lifecycle.LabelUserType]; got != "paid" {
		t.Errorf("the Pod that runs is of user type %q", got)
	}
	for _, e := range u.pod.Spec.Containers[0].Env {
		if e.Name == lifecycle.EnvIdleTimeoutMinutes && e.Value != "60" { // EnvUserType is the Pod's label
			t.Errorf("the agent is told %s=%s", e.Name, e.Value)
		}
	}
	now := u.claim()
	if now.UID != claim.UID || len(now.OwnerReferences) != 0 || now.Labels[lifecycle.LabelUserType] != "paid" {
		t.Errorf("the claim is %s of %v, owned by %v", now.UID, now.Labels, now.OwnerReferences)
	}
	u.expectGone()
	if took := time.Since(last); took < 35*time.Second {
		t.Errorf("the agent went %s after it was used", took)
	}
	u.expectFile("not to be lost")
	if back := u.claim(); back.UID != claim.UID {
		t.Errorf("the storage is another: %v", back.ObjectMeta)
	}
}

// A stream of events tells an agent's whole life by the states' names, with ready and warning; activity takes it out of idleness,
// and a snooze puts its end off.
func eventsTellTheLife(t *testing.T, f *frontend, id string) {
	u := newUser(t, f, id)
	heard := f.listen(t, u.path("/events"))
	heard.next("DELETED")
	u.want(http.StatusConflict, http.MethodPost, "/activity", "")
	u.put(http.StatusCreated, lifecycle.Free, 60) // 15 seconds, of which the last 6 are the warning
	heard.next("CREATED")
	heard.next("RUNNING")
	heard.next("ready")
	heard.next("IDLE")
	first := heard.deadline()
	u.want(http.StatusNoContent, http.MethodPost, "/activity", `{"source": "e2e"}`)
	heard.next("RUNNING")
	heard.next("IDLE")
	second := heard.deadline()
	if !second.After(first) {
		t.Errorf("after the activity it stops at %s, before that at %s", second, first)
	}
	var snoozed struct{ GrantedSeconds float64 }
	u.want(http.StatusOK, http.MethodPost, "/snooze", `{"seconds": 20}`).into(t, &snoozed)
	if snoozed.GrantedSeconds <= 0 {
		t.Errorf("the snooze granted %+v", snoozed)
	}
	heard.next("RUNNING")
	heard.next("IDLE")
	if third := heard.deadline(); third.Sub(second) < 5*time.Second {
		t.Errorf("after the snooze it stops at %s, before that at %s", third, second)
	}
	heard.next("SHUTDOWN")
	heard.next("DELETED")
	u.expectGone()
	u.want(http.StatusConflict, http.MethodPost, "/snooze", `{"seconds": 20}`)
}

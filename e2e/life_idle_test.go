//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// An agent that ends with 42 is gone, and its Service with it, though nobody but the reaper has said that it is its.
func idleIsGone(t *testing.T, name string) {
	l := bear(t, name)
	service(t, name)
	l.awaitOwned()
	l.leave42()
	l.expectGone()
}

// The storage of an anonymous user goes with the agent, also where it was made by hand.
func anonymousLeavesNothing(t *testing.T, name string) {
	claim(t, name)
	l := bear(t, name, withUserType(lifecycle.Anonymous), withClaim)
	l.awaitOwned()
	l.leave42()
	l.expectGone()
	_, err := client.CoreV1().PersistentVolumeClaims(agentsNamespace).Get(t.Context(), name+"-data", metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("the claim is there: %v", err)
	}
}

// The storage of others is kept, and is mounted again by the next agent of that name.
func storageIsKept(userType lifecycle.UserType) func(*testing.T, string) {
	return func(t *testing.T, name string) {
		claim(t, name)
		l := bear(t, name, withUserType(userType), withClaim)
		l.must("POST", "data", "content", "work of days")
		l.leave42()
		l.expectGone()
		next := bear(t, name, withUserType(userType), withClaim)
		if got := next.must("GET", "data"); got != "work of days" {
			t.Errorf("the next agent finds %q", got)
		}
	}
}

// A user who pays before the agent ends keeps the storage.
func raiseKeepsStorage(t *testing.T, name string) {
	claim(t, name)
	l := bear(t, name, withUserType(lifecycle.Anonymous), withClaim)
	l.awaitOwned()
	raise := []byte(`{"metadata": {"labels": {"` + lifecycle.LabelUserType + `": "paid"}}}`)
	editor := rest.CopyConfig(config) // the policy names who may change a user type
	editor.Impersonate = rest.ImpersonationConfig{UserName: "sales", Groups: []string{"system:masters"}}
	sales, err := kubernetes.NewForConfig(editor)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sales.AppsV1().Deployments(agentsNamespace).Patch(t.Context(), name, types.MergePatchType, raise, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, lifeTimeout, func(ctx context.Context) error {
		pods, err := l.pods(ctx) // the new user type is in the template too
		if err != nil || len(pods) != 1 || pods[0].Labels[lifecycle.LabelUserType] != "paid" {
			return fmt.Errorf("the raise has not arrived: %s, %w", describePods(pods), err)
		}
		return nil
	})
	l.awaitRunning()
	l.leave42()
	l.expectGone()
	kept, err := client.CoreV1().PersistentVolumeClaims(agentsNamespace).Get(t.Context(), name+"-data", metav1.GetOptions{})
	if err != nil || kept.DeletionTimestamp != nil || kept.Labels[lifecycle.LabelUserType] != "paid" {
		t.Errorf("the claim was not kept: %+v, %v", kept, err)
	}
}

//go:build e2e

package e2e

import (
	"context"
	"errors"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A sidecar that is not there when the agent ends finds out when it is back.
func sidecarKilledBefore(t *testing.T, name string) {
	l := bear(t, name)
	l.awaitAge()
	l.killSidecar()
	l.must("POST", "exit", "code", "42", "file", "42")
	l.expectGone()
}

// So does one that is killed while it asks.
func sidecarKilledDuring(t *testing.T, name string) {
	l := bear(t, name)
	l.leave42()
	time.Sleep(50 * time.Millisecond) // about when it asks
	l.killSidecar()
	l.expectGone()
}

// One that is killed when its call was accepted has nothing left to do: nobody needs it for the rest.
func sidecarKilledAfter(t *testing.T, name string) {
	l := bear(t, name)
	kill := l.sidecarKiller()
	l.leave42()
	poll(t, 10*time.Millisecond, lifeTimeout, func(ctx context.Context) error {
		d, err := client.AppsV1().Deployments(agentsNamespace).Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case err == nil && d.DeletionTimestamp == nil:
			return errors.New("the deletion was not accepted")
		}
		return err
	})
	kill()
	l.expectGone()
}

// sidecarGoesBy is about the test itself: that the sidecar is the one that the promises are kept with.
func sidecarGoesBy(mode string) func(*testing.T, string) {
	return func(t *testing.T, name string) {
		bear(t, name).expectSidecarSays(`"exitStatus":"` + mode + `"`)
	}
}

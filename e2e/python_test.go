//go:build e2e

package e2e

import (
	"os"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
)

// TestPythonAgent: an agent in Python that no lifecycle manager runs decides by itself, ends with 42, and is gone.
func TestPythonAgent(t *testing.T) {
	t.Parallel()
	image := os.Getenv("E2E_PYTHON_AGENT")
	if image == "" {
		t.Skip("E2E_PYTHON_AGENT names no image: there is no python3 of which make could have made one")
	}
	l := &life{t: t, name: "python"}
	l.create(func(d *appsv1.Deployment) {
		container := &d.Spec.Template.Spec.Containers[0]
		container.Image, container.ReadinessProbe = image, nil
	})
	podOf(t, l.deployment)
	l.expectGone()
}

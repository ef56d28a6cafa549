package fleet

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// serverDeployment is the Deployment of the servers, in the system's namespace.
const serverDeployment = "lifecycle-webhook"

// ErrNoPolicy says that the system is installed and its policy cannot be read from the cluster: it is missing, or is
// none.
var ErrNoPolicy = errors.New("the policy in force cannot be read from here")

// servers is what there is to know of the servers from their Deployment.
type servers struct {
	installed bool
	ready     int32

	// err says why nothing is known.
	err error
}

func (c *Cluster) servers(ctx context.Context) servers {
	d, err := c.client.AppsV1().Deployments(c.system).Get(ctx, serverDeployment, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return servers{}
	case err != nil:
		return servers{err: err}
	}
	return servers{installed: true, ready: d.Status.ReadyReplicas}
}

// withoutPolicy says what the servers do while there is no policy that they could read.
func (s servers) withoutPolicy() string {
	switch {
	case s.err != nil:
		return fmt.Sprintf("whether servers go on with an earlier one is not known: %v", s.err)
	case s.ready > 0:
		return fmt.Sprintf("the servers that run (%d ready) go on with the last good one that they read; none can start anew", s.ready)
	case s.installed:
		return "no server is ready, and none can start"
	}
	return "no server is installed"
}

// missingPolicy is the error where there is no ConfigMap of the policy. Without one and without servers nothing is
// installed.
func (s servers) missingPolicy(system string) error {
	missing := fmt.Sprintf("there is no ConfigMap %q in namespace %q", lifecycle.PolicyConfigMap, system)
	if !s.installed && s.err == nil {
		return fmt.Errorf("%w: %s", ErrNotInstalled, missing)
	}
	return fmt.Errorf("%w: %s; %s. Apply the installation again to bring it back", ErrNoPolicy, missing, s.withoutPolicy())
}

// UnreadablePolicy is the error where the ConfigMap holds something else than a policy; problem says what is wrong
// with it.
func (c *Cluster) UnreadablePolicy(ctx context.Context, problem string) error {
	return fmt.Errorf("%w: what ConfigMap %q in namespace %q holds is no policy; %s:\n%s", ErrNoPolicy, lifecycle.PolicyConfigMap, c.system,
		c.servers(ctx).withoutPolicy(), problem)
}

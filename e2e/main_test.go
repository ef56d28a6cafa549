//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/dexorder/agent-lifecycle/manifests"
)

const (
	systemNamespace = "dexorder-system"
	agentsNamespace = "dexorder-agents"
	serverName      = "lifecycle-webhook"
	gatewayName     = "agent-gateway"
	registration    = "agent-lifecycle"
	serverSelector  = "app.kubernetes.io/name=" + serverName
)

// How long the cluster may take. They are bounds against hanging, several times what an idle machine needs.
const (
	rolloutTimeout = 3 * time.Minute
	clusterTimeout = time.Minute
	// reloadTimeout is for the kubelet, which renews a mounted ConfigMap at its own pace, up to a minute and a half.
	reloadTimeout = 3 * time.Minute
	pollInterval  = 200 * time.Millisecond
)

// client is the administrator's, and config its access.
var (
	client kubernetes.Interface
	config *rest.Config
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := setUp(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		if client != nil {
			fmt.Fprintln(os.Stderr, "e2e: logs, events and objects are in", collect(context.WithoutCancel(ctx), "install"))
		}
		return 1
	}
	return m.Run()
}

func setUp(ctx context.Context) error {
	kubeconfig := os.Getenv("E2E_KUBECONFIG")
	if kubeconfig == "" {
		return errors.New("E2E_KUBECONFIG names no cluster; `make e2e` makes one")
	}
	var err error
	if config, err = clientcmd.BuildConfigFromFlags("", kubeconfig); err != nil {
		return err
	}
	config.QPS = -1                           // constant traffic is part of the tests
	config.WarningHandler = rest.NoWarnings{} // attempts that must fail cause plenty
	if client, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	return install(ctx, strings.Fields(os.Getenv("E2E_IMAGES")))
}

// install applies the dev overlay and returns when the server serves it. What was installed before is replaced.
func install(ctx context.Context, images []string) error {
	dir, err := os.MkdirTemp("", "agent-lifecycle-e2e-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := manifests.Compose(dir, "../manifests/overlays/dev", []string{"gateway"}, images); err != nil {
		return err
	}
	objects, err := manifests.Render(ctx, dir, "../tools/go.mod")
	if err != nil {
		return err
	}
	if err := hurryReaper(objects); err != nil {
		return err
	}
	applier, err := manifests.NewApplier(config)
	if err != nil {
		return err
	}
	if _, err := applier.Apply(ctx, objects); err != nil {
		return err
	}
	// An image may have been built anew under the same tag.
	for _, deployment := range []string{serverName, gatewayName} {
		if err := restart(ctx, deployment); err != nil {
			return err
		}
	}
	for _, deployment := range []string{serverName, gatewayName} {
		if err := rolledOut(ctx, deployment); err != nil {
			return err
		}
	}
	return wait.PollUntilContextTimeout(ctx, pollInterval, clusterTimeout, true,
		func(ctx context.Context) (bool, error) { return tryAgent(ctx) == nil, nil })
}

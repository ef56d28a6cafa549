//go:build e2e

package installation

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	systemNamespace = "dexorder-system"
	agentsNamespace = "dexorder-agents"
	serverName      = "lifecycle-webhook"
	registration    = "agent-lifecycle"
)

// How long the cluster may take. They are bounds against hanging, several times what an idle machine needs.
const (
	commandTimeout = 2 * time.Minute
	clusterTimeout = 2 * time.Minute
	pollInterval   = 200 * time.Millisecond
)

// client is the administrator's, config its access, and kubeconfig the file in which the tools find it.
var (
	client     kubernetes.Interface
	config     *rest.Config
	kubeconfig string
)

func TestMain(m *testing.M) {
	if err := setUp(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func setUp() error {
	for _, variable := range []string{"E2E_KUBECONFIG", "E2E_IMAGES", "E2E_PREVIOUS_IMAGES", "E2E_PREVIOUS_MANIFESTS", "E2E_FIRST_IMAGES", "E2E_FIRST_MANIFESTS"} {
		if os.Getenv(variable) == "" {
			return errors.New(variable + " is empty; `make e2e` sets it")
		}
	}
	kubeconfig = os.Getenv("E2E_KUBECONFIG")
	current = version{manifests: "../../manifests", images: strings.Fields(os.Getenv("E2E_IMAGES"))}
	here, err := os.Getwd()
	if err != nil {
		return err
	}
	for prefix, v := range map[string]*version{"E2E_PREVIOUS": &previous, "E2E_FIRST": &first} {
		relative, err := filepath.Rel(here, os.Getenv(prefix+"_MANIFESTS")) // kustomize takes no others
		if err != nil {
			return err
		}
		*v = version{manifests: relative, images: strings.Fields(os.Getenv(prefix + "_IMAGES"))}
	}
	if config, err = clientcmd.BuildConfigFromFlags("", kubeconfig); err != nil {
		return err
	}
	config.QPS = -1                           // constant traffic is part of the tests
	config.WarningHandler = rest.NoWarnings{} // attempts that must fail cause plenty
	client, err = kubernetes.NewForConfig(config)
	return err
}

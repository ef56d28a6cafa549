package program

import (
	"fmt"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// RESTConfig says how to reach the API server: by the kubeconfig file, or as the Pod's own account where that is empty.
func RESTConfig(kubeconfig, userAgent string) (*rest.Config, error) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig}
	load := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig
	if kubeconfig == "" {
		load = rest.InClusterConfig
	}
	config, err := load()
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	config.UserAgent = userAgent
	config.Timeout = 0 // watches last; look-ups have the deadline of their request
	// The API server itself queues by priority and fairness. A bound here would make look-ups wait that users wait for.
	config.QPS = -1
	return config, nil
}

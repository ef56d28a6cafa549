package installation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
)

// installed lists the files of the base that are installed, in order. What is missing runs as processes here: the
// server's Deployment, its Service, its policy ConfigMap.
var installed = []string{
	"namespaces.yaml",
	"service-accounts.yaml",
	"rbac.yaml",
	"self-delete-policy.yaml",
	"keep-policy.yaml",
	"reaping-policy.yaml",
	"mutating-webhook.yaml",
	"validating-webhook.yaml",
	"self-delete-binding.yaml",
	"breaker.yaml",
	"rules.yaml",
}

func (i *Installation) apply(ctx context.Context) error {
	for _, name := range installed {
		objects, err := ReadObjects(filepath.Join(i.options.Manifests, name))
		if err != nil {
			return err
		}
		for _, o := range objects {
			if err := i.pointAtBalancer(o); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if err := i.Client.Create(ctx, o); err != nil {
				return fmt.Errorf("%s: %s %s: %w", name, o.GetKind(), o.GetName(), err)
			}
			i.Objects++
		}
	}
	return nil
}

// pointAtBalancer gives webhooks an address in place of their Service: there is no cluster network here.
func (i *Installation) pointAtBalancer(o *unstructured.Unstructured) error {
	webhooks, found, err := unstructured.NestedSlice(o.Object, "webhooks")
	if err != nil || !found {
		return err
	}
	for _, w := range webhooks {
		webhook, ok := w.(map[string]any)
		if !ok {
			return errors.New("a webhook is not an object")
		}
		path, found, err := unstructured.NestedString(webhook, "clientConfig", "service", "path")
		if err != nil || !found {
			return fmt.Errorf("webhook %v has no path: %w", webhook["name"], err)
		}
		webhook["clientConfig"] = map[string]any{"url": "https://" + i.balancer.address() + path}
	}
	return unstructured.SetNestedSlice(o.Object, webhooks, "webhooks")
}

// ReadObjects reads the objects of a YAML file.
func ReadObjects(file string) ([]*unstructured.Unstructured, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	var objects []*unstructured.Unstructured
	for {
		o := &unstructured.Unstructured{}
		switch err := decoder.Decode(&o.Object); {
		case errors.Is(err, io.EOF):
			return objects, nil
		case err != nil:
			return nil, fmt.Errorf("%s: %w", file, err)
		case len(o.Object) > 0:
			objects = append(objects, o)
		}
	}
}

// serverKubeconfig writes a kubeconfig by which a server acts as its own service account: with the administrator's
// key, but with no right that the manifests do not give.
func (i *Installation) serverKubeconfig() (string, error) {
	config, err := clientcmd.LoadFromFile(i.cluster.Kubeconfig())
	if err != nil {
		return "", err
	}
	account := controlplane.ServiceAccount(SystemNamespace, ServerAccount)
	for _, user := range config.AuthInfos {
		user.Impersonate, user.ImpersonateGroups = account.UserName, account.Groups
	}
	path := filepath.Join(i.dir, "server.kubeconfig")
	return path, clientcmd.WriteToFile(*config, path)
}

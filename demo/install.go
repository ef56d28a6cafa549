package main

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
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
)

// installed lists the files of the base that the demo installs, in order. What is missing runs as processes here: the
// server's Deployment, its Service, its policy ConfigMap.
var installed = []string{
	"namespaces.yaml",
	"service-accounts.yaml",
	"rbac.yaml",
	"self-delete-policy.yaml",
	"mutating-webhook.yaml",
	"validating-webhook.yaml",
}

func (d *demo) install(ctx context.Context) (int, error) {
	n := 0
	for _, name := range installed {
		objects, err := readObjects(filepath.Join(d.manifests, name))
		if err != nil {
			return 0, err
		}
		for _, o := range objects {
			if err := d.pointAtBalancer(o); err != nil {
				return 0, fmt.Errorf("%s: %w", name, err)
			}
			if err := d.client.Create(ctx, o); err != nil {
				return 0, fmt.Errorf("%s: %s %s: %w", name, o.GetKind(), o.GetName(), err)
			}
			n++
		}
	}
	return n, nil
}

// pointAtBalancer gives webhooks an address in place of their Service: there is no cluster network here.
func (d *demo) pointAtBalancer(o *unstructured.Unstructured) error {
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
		webhook["clientConfig"] = map[string]any{"url": "https://" + d.balancer.address() + path}
	}
	return unstructured.SetNestedSlice(o.Object, webhooks, "webhooks")
}

func readObjects(file string) ([]*unstructured.Unstructured, error) {
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
func (d *demo) serverKubeconfig() (string, error) {
	config, err := clientcmd.LoadFromFile(d.cluster.Kubeconfig())
	if err != nil {
		return "", err
	}
	account := controlplane.ServiceAccount(systemNamespace, serverName)
	for _, user := range config.AuthInfos {
		user.Impersonate, user.ImpersonateGroups = account.UserName, account.Groups
	}
	path := filepath.Join(d.dir, "server.kubeconfig")
	return path, clientcmd.WriteToFile(clientcmdapi.Config(*config), path)
}

// as returns a client that acts as somebody else.
func (d *demo) as(user rest.ImpersonationConfig) (client.Client, error) {
	return client.New(d.cluster.Impersonate(user), client.Options{})
}

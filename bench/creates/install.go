package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/dexorder/agent-lifecycle/bench"
	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/internal/installation"
)

// benchmark is everything that runs.
type benchmark struct {
	cluster      *controlplane.ControlPlane
	client       kubernetes.Interface
	apiServer    process
	dir          string
	certificate  *certificate
	installation *installation.Installation
	programs     []*program
	variants     []*variant
}

func newBench(cluster *controlplane.ControlPlane) (*benchmark, error) {
	dir, err := os.MkdirTemp("", "agent-lifecycle-bench-")
	if err != nil {
		return nil, err
	}
	b := &benchmark{cluster: cluster, dir: dir}
	if b.certificate, err = newCertificate(dir); err != nil {
		return nil, errors.Join(err, b.close())
	}
	config := rest.CopyConfig(cluster.Config)
	config.WarningHandler = rest.NoWarnings{} // the bare Deployment gets some from Pod Security
	if b.client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *benchmark) close() error {
	var errs []error
	if b.installation != nil {
		errs = append(errs, b.installation.Close())
	}
	for _, p := range b.programs {
		p.stop()
	}
	return errors.Join(append(errs, os.RemoveAll(b.dir))...)
}

// install registers every variant and returns when each was seen to do its work.
func (b *benchmark) install(ctx context.Context, o *options) error {
	// The policy is the benchmark's, so that the stock pair enforces the same one.
	policy := filepath.Join(b.dir, "policy.yaml")
	if err := os.WriteFile(policy, bench.Policy(installation.AgentsNamespace), 0o600); err != nil {
		return err
	}
	var err error
	b.installation, err = installation.New(ctx, b.cluster, installation.Options{
		Program: o.server, Manifests: o.manifests, Policy: policy, Flags: []string{"--drain-delay=0s"},
	})
	if err != nil {
		return err
	}
	if b.apiServer, err = b.findAPIServer(); err != nil {
		return err
	}
	b.variants = variants(o)
	for _, v := range b.variants {
		if err := b.createNamespace(ctx, v.namespace); err != nil {
			return err
		}
		if err := v.install(ctx, b, v); err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
	}
	for _, v := range b.variants {
		if err := b.await(ctx, v); err != nil {
			return fmt.Errorf("%s does not do its work: %w", v.name, err)
		}
	}
	return nil
}

// findAPIServer reads the process id that package controlplane writes down for its guard.
func (b *benchmark) findAPIServer() (process, error) {
	id, err := os.ReadFile(filepath.Join(filepath.Dir(b.cluster.Kubeconfig()), "kube-apiserver.pid"))
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(id)))
	return process(pid), err
}

// createNamespace makes a namespace with the labels of the real one: Pod Security warnings take time, too.
func (b *benchmark) createNamespace(ctx context.Context, name string) error {
	if name == installation.AgentsNamespace {
		return nil
	}
	like, err := b.client.CoreV1().Namespaces().Get(ctx, installation.AgentsNamespace, metav1.GetOptions{})
	if err != nil {
		return err
	}
	labels := like.Labels
	delete(labels, corev1.LabelMetadataName)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	_, err = b.client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{})
	return err
}

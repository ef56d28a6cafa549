package installation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
)

// What the base's manifests call things.
const (
	AgentsNamespace = "dexorder-agents"
	SystemNamespace = "dexorder-system"
	ServerAccount   = "lifecycle-webhook"
	CASecret        = "lifecycle-webhook-ca"
)

// Options say what to install. Paths are relative to the working directory.
type Options struct {
	// Program is the server's binary, Manifests the directory of the base, Policy the policy file to begin with.
	Program   string
	Manifests string
	Policy    string

	// Flags are given to every server beside the necessary ones.
	Flags []string
}

// Installation is what was installed on a control plane.
type Installation struct {
	// Client is the administrator's.
	Client client.Client

	// PolicyFile is the copy that the servers read.
	PolicyFile string

	// Objects is how many objects of the manifests were created.
	Objects int

	options    Options
	cluster    *controlplane.ControlPlane
	dir        string
	kubeconfig string
	balancer   *balancer
	running    []*Server
	started    []*Server
}

// New installs the manifests, without a server. Close must be called unless there is an error.
func New(ctx context.Context, cluster *controlplane.ControlPlane, opts Options) (_ *Installation, err error) {
	i := &Installation{options: opts, cluster: cluster}
	defer func() {
		if err != nil {
			err = errors.Join(err, i.Close())
		}
	}()
	if i.dir, err = os.MkdirTemp("", "agent-lifecycle-installation-"); err != nil {
		return nil, err
	}
	if i.Client, err = client.New(rest.CopyConfig(cluster.Config), client.Options{}); err != nil {
		return nil, err
	}
	if i.balancer, err = newBalancer(); err != nil {
		return nil, err
	}
	if err := i.apply(ctx); err != nil {
		return nil, err
	}
	if i.kubeconfig, err = i.serverKubeconfig(); err != nil {
		return nil, err
	}
	policy, err := os.ReadFile(opts.Policy)
	if err != nil {
		return nil, err
	}
	i.PolicyFile = filepath.Join(i.dir, "policy", "policy.yaml")
	if err := os.Mkdir(filepath.Dir(i.PolicyFile), 0o700); err != nil {
		return nil, err
	}
	return i, os.WriteFile(i.PolicyFile, policy, 0o600)
}

// Address is the host and port behind which the servers are, by the name that their certificate carries.
func (i *Installation) Address() string { return i.balancer.address() }

// Servers returns the servers behind the address.
func (i *Installation) Servers() []*Server { return append([]*Server{}, i.running...) }

// WritePolicy gives the servers another policy file. As a ConfigMap's volume does it, the new file takes the old one's
// place at once.
func (i *Installation) WritePolicy(policy []byte) error {
	next := i.PolicyFile + ".new"
	if err := os.WriteFile(next, policy, 0o600); err != nil {
		return err
	}
	return os.Rename(next, i.PolicyFile)
}

// WriteCA writes the certificate of the CA that the servers have now to a file and returns its path.
func (i *Installation) WriteCA(ctx context.Context) (string, error) {
	secret := &corev1.Secret{}
	if err := i.Client.Get(ctx, client.ObjectKey{Namespace: SystemNamespace, Name: CASecret}, secret); err != nil {
		return "", err
	}
	file := filepath.Join(i.dir, "ca.crt")
	return file, os.WriteFile(file, secret.Data[corev1.TLSCertKey], 0o600)
}

// AddServer starts a server and puts it behind the address once it is ready.
func (i *Installation) AddServer(ctx context.Context) (*Server, error) {
	s, err := startServer(i.options.Program, filepath.Join(i.dir, fmt.Sprintf("server-%d.log", len(i.started)+1)),
		append([]string{
			"--kubeconfig", i.kubeconfig,
			"--policy", i.PolicyFile,
			"--namespace", SystemNamespace,
			"--dns-name", "localhost",
		}, i.options.Flags...))
	if err != nil {
		return nil, err
	}
	i.started = append(i.started, s)
	if err := s.awaitReady(ctx); err != nil {
		return nil, fmt.Errorf("%w%s", err, i.Logs())
	}
	i.running = append(i.running, s)
	i.balancer.add(s)
	return s, nil
}

// RemoveServer takes a server from behind the address and stops it at the same moment, as a cluster does with a Pod.
// An error means that it did not finish well.
func (i *Installation) RemoveServer(s *Server) error {
	i.balancer.remove(s)
	for j := range i.running {
		if i.running[j] == s {
			i.running = append(i.running[:j:j], i.running[j+1:]...)
			break
		}
	}
	return s.Stop()
}

// Logs returns the end of every server's log, for an error.
func (i *Installation) Logs() string {
	var b strings.Builder
	for _, s := range i.started {
		log, err := os.ReadFile(s.Log)
		if err != nil {
			continue
		}
		lines := bytes.Split(bytes.TrimSpace(log), []byte("\n"))
		lines = lines[max(0, len(lines)-8):]
		fmt.Fprintf(&b, "\n--- the end of %s\n%s", filepath.Base(s.Log), bytes.Join(lines, []byte("\n")))
	}
	return b.String()
}

// Close stops the servers and removes what was made on disk. The control plane stays.
func (i *Installation) Close() error {
	var errs []error
	for _, s := range i.running {
		errs = append(errs, s.Stop())
	}
	for _, s := range i.started {
		s.kill()
	}
	if i.balancer != nil {
		i.balancer.close()
	}
	if i.dir != "" {
		errs = append(errs, os.RemoveAll(i.dir))
	}
	return errors.Join(errs...)
}

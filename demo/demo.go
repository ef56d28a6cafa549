package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
)

const (
	agentsNamespace = "dexorder-agents"
	systemNamespace = "dexorder-system"
	serverName      = "lifecycle-webhook"
)

// demo is one walk.
type demo struct {
	out          io.Writer
	program      string
	manifests    string
	policySource string
	agentFile    string

	dir        string
	policyFile string
	cluster    *controlplane.ControlPlane
	client     client.Client
	balancer   *balancer
	servers    []*server
}

// scene is one part of the walk.
type scene struct {
	title string
	play  func(*demo, context.Context) error
}

var scenes = []scene{
	{"A cluster, and two servers behind one address", (*demo).start},
	{"A plain agent goes in; this is what was injected", (*demo).injectAgent},
	{"The same file again changes nothing", (*demo).applyAgain},
	{"Five things that are refused, and what the user reads", (*demo).refusals},
	{"The policy file changes, and nothing restarts", (*demo).reloadPolicy},
	{"The CA is thrown away under traffic, and nothing fails", (*demo).rotateCertificate},
	{"Both servers are replaced under traffic, and nothing fails", (*demo).restartServers},
}

func (d *demo) run(ctx context.Context) error {
	var err error
	if d.dir, err = os.MkdirTemp("", "agent-lifecycle-demo-"); err != nil {
		return err
	}
	for i, s := range scenes {
		fmt.Fprintf(d.out, "\n%d. %s\n\n", i+1, s.title)
		if err := s.play(d, ctx); err != nil {
			return fmt.Errorf("%s: %w%s", s.title, err, d.serverLogs())
		}
	}
	return nil
}

// close stops whatever runs.
func (d *demo) close() error {
	var errs []error
	for _, s := range d.servers {
		errs = append(errs, s.stop())
	}
	if d.balancer != nil {
		d.balancer.close()
	}
	if d.cluster != nil {
		errs = append(errs, d.cluster.Stop())
	}
	if d.dir != "" {
		errs = append(errs, os.RemoveAll(d.dir))
	}
	return errors.Join(errs...)
}

// start brings up the cluster, installs what the manifests say and runs two servers.
func (d *demo) start(ctx context.Context) error {
	var err error
	if d.cluster, err = controlplane.Start(ctx, controlplane.Options{}); err != nil {
		return err
	}
	d.say("etcd and kube-apiserver run at %s", d.cluster.Config.Host)
	if d.client, err = client.New(rest.CopyConfig(d.cluster.Config), client.Options{}); err != nil {
		return err
	}
	if d.balancer, err = newBalancer(); err != nil {
		return err
	}
	n, err := d.install(ctx)
	if err != nil {
		return err
	}
	d.say("installed %d objects of %s: namespaces, rights, policies, webhook registrations", n, d.manifests)

	policy, err := os.ReadFile(d.policySource)
	if err != nil {
		return err
	}
	d.policyFile = filepath.Join(d.dir, "policy", "policy.yaml")
	if err := os.Mkdir(filepath.Dir(d.policyFile), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(d.policyFile, policy, 0o600); err != nil {
		return err
	}
	for range 2 {
		if err := d.addServer(ctx); err != nil {
			return err
		}
	}
	d.say("two servers answer as https://%s, with the rights of their service account and no more", d.balancer.address())
	return nil
}

// addServer starts a server and puts it behind the address once it is ready.
func (d *demo) addServer(ctx context.Context) error {
	kubeconfig, err := d.serverKubeconfig()
	if err != nil {
		return err
	}
	s, err := startServer(d.program, filepath.Join(d.dir, fmt.Sprintf("server-%d.log", len(d.servers)+1)), []string{
		"--kubeconfig", kubeconfig,
		"--policy", d.policyFile,
		"--namespace", systemNamespace,
		"--dns-name", "localhost",
		"--drain-delay", "2s",
	})
	if err != nil {
		return err
	}
	d.servers = append(d.servers, s)
	if err := s.awaitReady(ctx); err != nil {
		return err
	}
	d.balancer.add(s)
	return nil
}

func (d *demo) explainKeep() {
	fmt.Fprintf(d.out, `
It stays up. In another terminal:

  export KUBECONFIG=%s
  kubectl -n %s get deployments

The servers answer as https://%s (CA: the Secret %s/lifecycle-webhook-ca, key ca.crt).
The policy file is %s: edit it and apply something.
Ctrl-C stops everything and removes what it made.
`, d.cluster.Kubeconfig(), agentsNamespace, d.balancer.address(), systemNamespace, d.policyFile)
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.out, "   "+format+"\n", args...)
}

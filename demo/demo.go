package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/internal/installation"
	"github.com/dexorder/agent-lifecycle/internal/natsserver"
)

// demo is one walk.
type demo struct {
	out       io.Writer
	options   installation.Options
	agentFile string

	// programs is the directory of lifecycle-manager and lifecycle-sidecar.
	programs string

	// eventsDir is where NATS keeps its stream.
	eventsDir string
	nats      *natsserver.Server

	cluster      *controlplane.ControlPlane
	installation *installation.Installation
	client       client.Client
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
	{"An agent goes idle, and is gone", (*demo).idleAgent},
	{"A role agent's namespace goes quiet, and is reaped; its events come over NATS", (*demo).reapNamespace},
}

func (d *demo) run(ctx context.Context) error {
	for i, s := range scenes {
		fmt.Fprintf(d.out, "\n%d. %s\n\n", i+1, s.title)
		if err := s.play(d, ctx); err != nil {
			if d.installation != nil {
				err = fmt.Errorf("%w%s", err, d.installation.Logs())
			}
			return fmt.Errorf("%s: %w", s.title, err)
		}
	}
	return nil
}

// close stops whatever runs.
func (d *demo) close() error {
	var errs []error
	if d.installation != nil {
		errs = append(errs, d.installation.Close())
	}
	if d.cluster != nil {
		errs = append(errs, d.cluster.Stop())
	}
	if d.nats != nil {
		d.nats.Stop()
		errs = append(errs, os.RemoveAll(d.eventsDir))
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
	if err := d.startNATS(); err != nil {
		return err
	}
	d.say("a NATS server with JetStream runs at %s", d.nats.URL())
	if d.installation, err = installation.New(ctx, d.cluster, d.options); err != nil {
		return err
	}
	d.client = d.installation.Client
	d.say("installed %d objects of %s: namespaces, rights, policies, webhook registrations",
		d.installation.Objects, d.options.Manifests)
	for range 2 {
		if _, err := d.installation.AddServer(ctx); err != nil {
			return err
		}
	}
	d.say("two servers answer as https://%s, with the rights of their service account and no more", d.installation.Address())
	return nil
}

// explainKeep says how to reach what stays up.
func (d *demo) explainKeep(ctx context.Context) error {
	ca, err := d.installation.WriteCA(ctx)
	if err != nil {
		return err
	}
	kubectl := "kubectl"
	if _, err := exec.LookPath(kubectl); err != nil {
		kubectl = filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), kubectl)
	}
	fmt.Fprintf(d.out, `
It stays up. In another terminal:

  export KUBECONFIG=%[1]s
  %[2]s -n %[3]s get deployments

The servers' URL:  https://%[4]s/mutate and /validate
Their CA file:     %[5]s
Their policy file: %[6]s, to edit
Metrics of one:    http://%[7]s/metrics

Ctrl-C stops everything and removes what it made.
`, d.cluster.Kubeconfig(), kubectl, installation.AgentsNamespace, d.installation.Address(), ca,
		d.installation.PolicyFile, d.installation.Servers()[0].Health)
	return nil
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.out, "   "+format+"\n", args...)
}

// Command fleet measures what kubectl agents audit, upgrade and list cost the machine of the operator, beside kubectl get on the same
// Deployments: what any script that judges them would begin with. Agents have no Pods here, so none is asked what it does.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/yaml"

	"github.com/dexorder/agent-lifecycle/bench/timing"
	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/internal/installation"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

type options struct {
	server, plugin, kubectl string
	manifests, deployment   string
	sizes                   []int
	runs                    int
}

func main() {
	var o options
	var sizes string
	flag.StringVar(&o.server, "server", "", "`program` lifecycle-webhook")
	flag.StringVar(&o.plugin, "plugin", "", "`program` kubectl-agents")
	flag.StringVar(&o.kubectl, "kubectl", "", "`program` kubectl")
	flag.StringVar(&o.manifests, "manifests", "manifests/base", "`directory` of what is installed")
	flag.StringVar(&o.deployment, "deployment", "manifests/examples/agent-deployment.yaml", "`file` with the Deployment of which there are many")
	flag.StringVar(&sizes, "sizes", "1000,4000", "how many agents the fleets have, ascending")
	flag.IntVar(&o.runs, "runs", 3, "how often each command is run; the median counts")
	flag.Parse()
	var err error
	for field := range strings.SplitSeq(sizes, ",") {
		n, wrong := strconv.Atoi(field)
		if wrong != nil || n < 1 {
			err = fmt.Errorf("--sizes %q: accepted are whole numbers above 0, separated by commas", sizes)
		}
		o.sizes = append(o.sizes, n)
	}
	if err != nil || o.server == "" || o.plugin == "" || o.kubectl == "" || o.runs < 1 || !slices.IsSorted(o.sizes) {
		fmt.Fprintln(os.Stderr, "fleet:", errors.Join(err, errors.New("usage: bench/fleet/run")))
		os.Exit(2)
	}
	log.SetLogger(logr.Discard())
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if err := run(ctx, &o); err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o *options) (err error) {
	plane, err := controlplane.Start(ctx, controlplane.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plane.Stop()) }()
	policy := filepath.Join(o.manifests, "policy.yaml")
	in, err := installation.New(ctx, plane, installation.Options{Program: o.server, Manifests: o.manifests, Policy: policy})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	if _, err := in.AddServer(ctx); err != nil {
		return err
	}
	config := rest.CopyConfig(plane.Config)
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	if err := publish(ctx, client, policy); err != nil {
		return err
	}
	stricter, err := writeStricter()
	if err != nil {
		return err
	}
	defer os.Remove(stricter)
	template, err := readDeployment(o.deployment)
	if err != nil {
		return err
	}
	commands := []command{
		{"kubectl get deployments -o json", o.kubectl, []string{"get", "deployments", "-A", "-o", "json"}},
		{"kubectl agents audit", o.plugin, []string{"audit"}},
		{"kubectl agents audit --policy FILE", o.plugin, []string{"audit", "--policy", stricter}},
		{"kubectl agents upgrade --dry-run", o.plugin, []string{"upgrade", "--dry-run"}},
		{"kubectl agents list", o.plugin, []string{"list"}},
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', tabwriter.AlignRight)
	defer w.Flush()
	fmt.Fprintln(w, "agents\twall\tof kubectl get\tCPU\tpeak memory\t  command")
	begun := 0
	for _, size := range o.sizes {
		if err := create(ctx, client, template, begun, size); err != nil {
			return err
		}
		begun = size
		var baseline time.Duration
		for _, c := range commands {
			progress("%d agents: %s", size, c.name)
			m, err := measure(ctx, c, plane.Kubeconfig(), o.runs)
			if err != nil {
				return err
			}
			if baseline == 0 {
				baseline = m.Wall
			}
			fmt.Fprintf(w, "%d\t%.2f s\t%.1f\t%.2f s\t%d MiB\t  %s\n",
				size, m.Wall.Seconds(), m.Wall.Seconds()/baseline.Seconds(), m.CPU.Seconds(), m.Peak>>20, c.name)
		}
	}
	return nil
}

// publish puts the policy where operators read it.
func publish(ctx context.Context, client kubernetes.Interface, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	_, err = client.CoreV1().ConfigMaps(installation.SystemNamespace).Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: lifecycle.PolicyConfigMap}, Data: map[string]string{lifecycle.PolicyKey: string(data)},
	}, metav1.CreateOptions{})
	return err
}

// writeStricter writes a policy by which every agent would be refused, so that there is much to say.
func writeStricter() (string, error) {
	const allowed = "          - ghcr.io/dexorder/*\n"
	policy := bytes.Replace(v1alpha1.Example(), []byte(allowed), []byte("          - registry.example.com/*\n"), 1)
	if bytes.Equal(policy, v1alpha1.Example()) {
		return "", fmt.Errorf("the example policy has no line %q", allowed)
	}
	f, err := os.CreateTemp("", "agent-lifecycle-policy-*.yaml")
	if err != nil {
		return "", err
	}
	_, err = f.Write(policy)
	return f.Name(), errors.Join(err, f.Close())
}

func readDeployment(file string) (*appsv1.Deployment, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for document := range bytes.SplitSeq(data, []byte("\n---\n")) {
		var d appsv1.Deployment
		if err := yaml.Unmarshal(document, &d); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if d.Kind == "Deployment" {
			d.Spec.Template.Spec.Volumes, d.Spec.Template.Spec.Containers[0].VolumeMounts = nil, nil // claims are each agent's own
			return &d, nil
		}
	}
	return nil, fmt.Errorf("%s has no Deployment", file)
}

func create(ctx context.Context, client kubernetes.Interface, template *appsv1.Deployment, from, to int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i := from; i < to; i++ {
		if i%1000 == 0 {
			progress("creating agents: %d of %d", i, to)
		}
		group.Go(func() error {
			d := template.DeepCopy()
			d.Name = fmt.Sprintf("agent-%05d", i)
			_, err := client.AppsV1().Deployments(d.Namespace).Create(ctx, d, metav1.CreateOptions{})
			return err
		})
	}
	return group.Wait()
}

type command struct {
	name, program string
	args          []string
}

// measure returns the run that took the median time.
func measure(ctx context.Context, c command, kubeconfig string, runs int) (timing.Used, error) {
	var all []timing.Used
	for range runs {
		cmd := exec.CommandContext(ctx, c.program, append(slices.Clone(c.args), "--kubeconfig", kubeconfig)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		u, err := timing.Run(cmd)
		if ended := new(exec.ExitError); err != nil && (!errors.As(err, &ended) || ended.ExitCode() != 1) { // 1: there is something to say
			return u, fmt.Errorf("%s: %w\n%s", c.name, err, stderr.Bytes())
		}
		all = append(all, u)
	}
	slices.SortFunc(all, func(a, b timing.Used) int { return int(a.Wall - b.Wall) })
	return all[len(all)/2], nil
}

// progress goes to the terminal; the table goes to standard output.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

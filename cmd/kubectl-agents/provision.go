package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"

	"github.com/dexorder/agent-lifecycle/fleet"
	"github.com/dexorder/agent-lifecycle/offline"
	"github.com/dexorder/agent-lifecycle/offline/manifest"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/provision"
)

const provisionHelp = `The namespace of a role agent, with all that belongs into it, is made as the template says, or brought back to that: what would
change is shown first, by a dry run on the API server, and then asked about. The agent's Deployment is judged by the webhook as any
other. It is safe to run again: what is as it should be is not written.

A namespace that is of another role, org or environment is not taken over: accepted is the one of before, or with --from another namespace.

The template is part of this program; --with adds components of it. A kustomization of your own, with --from, can say anything else
that may be in a namespace: begin with the overlays in manifests/role-namespace. Secrets are only named in it. They are never created,
changed or read here; which ones are missing is said at the end.

What an autoscaler sets of a workload that is there, its replicas, stays as it is, and is said.

The role's template is left in the system's namespace as well, where the reaper compares it with the namespace from then on.

Examples:
  # Judge what would be applied, without a cluster
  kubectl agents provision marketing --org dexorder --env production --dry-run | kubectl agents check -f -

  # Show what would change, and exit 1 if anything does
  kubectl agents provision marketing --org dexorder --env production --diff

  # Another image, and git over SSH; do not ask
  kubectl agents provision marketing --org dexorder --env production --image ghcr.io/dexorder/agent:v2 --with git-ssh --yes

  # A kustomization of your own
  kubectl agents provision ceo --from overlays/ceo-staging

Exit codes:
  0  it is as it should be; with --diff, was so already
  1  refused, or not confirmed; with --diff, something would change
  2  something is not understood, or could not be found out
`

var provisionVerb = verb{
	name:     "provision",
	summary:  "make a role agent's namespace what its template says",
	help:     provisionHelp,
	argument: "ROLE",
	bind: func(flags *pflag.FlagSet) func(streams) int {
		p := &provisionFlags{}
		flags.StringVar(&p.role.Org, "org", "", "the namespace's label org; the reaper looks after those that its policy lists")
		flags.StringVar(&p.role.Environment, "env", "", "the namespace's label environment")
		flags.StringVar(&p.role.Image, "image", "", "what the agent's container runs: the one called agent, or that the template's annotation names, or the only one")
		flags.StringVar(&p.role.Dir, "from", "", "`DIRECTORY` of a kustomization to use in place of the template")
		flags.StringArrayVar(&p.role.Components, "with", nil,
			"`COMPONENT` of the template to add, may be given more than once: "+strings.Join(provision.Components(), ", "))
		flags.BoolVar(&p.dryRun, "dry-run", false, "print what would be applied and ask no cluster")
		flags.BoolVar(&p.diff, "diff", false, "show what would change, and change nothing")
		flags.BoolVarP(&p.yes, "yes", "y", false, "do not ask")
		p.clusterFlags.bind(flags)
		return func(s streams) int { return p.run(s, flags.Arg(0)) }
	},
}

// provisionTimeout bounds all that one run asks of a cluster, but not the time that somebody takes to read a diff.
const provisionTimeout = 2 * time.Minute

type provisionFlags struct {
	clusterFlags
	role              provision.Role
	dryRun, diff, yes bool
}

func (p *provisionFlags) run(s streams, role string) int {
	switch {
	case role == "":
		s.fail("kubectl agents provision: say which role, such as marketing")
		return exitNotUnderstood
	case p.dryRun && (p.diff || p.yes):
		s.fail("--dry-run asks no cluster, and takes neither --diff nor --yes")
		return exitNotUnderstood
	case p.diff && p.yes:
		s.fail("--diff changes nothing, and takes no --yes")
		return exitNotUnderstood
	}
	p.role.Name = role
	// A mistake in the template or in the flags is one on any cluster.
	rendered, err := provision.Render(p.role)
	if err != nil {
		s.fail("%v", err)
		return exitNotUnderstood
	}
	if p.dryRun {
		text, err := rendered.YAML()
		if err == nil {
			_, err = s.out.Write(text)
		}
		return s.exit(err)
	}
	s = s.forPeople()
	c, err := p.provisioner(s)
	if err != nil {
		return s.exit(err)
	}
	ctx, stop := untilInterrupted()
	defer stop()
	return s.exit(p.provision(ctx, s, c))
}

// provisioner connects to the cluster.
func (c *clusterFlags) provisioner(s streams) (*provision.Provisioner, error) {
	config, err := c.config()
	if err != nil {
		return nil, err
	}
	// A namespace has many objects, and nobody else waits for this process.
	config.QPS, config.Burst = 50, 100
	config.WarningHandler = rest.NewWarningWriter(s.err, rest.WarningWriterOptions{Deduplicate: true})
	return provision.New(config, c.namespace, time.Now)
}

// errDiffers is the outcome of --diff where something would change, errUnconfirmed that of a question.
var (
	errDiffers     = fmt.Errorf("%w: it is not as it should be", errQuiet)
	errUnconfirmed = errors.New("not confirmed, nothing was changed; --yes does not ask")

	// errQuiet is at the root of errors of which everything has been said.
	errQuiet = errors.New("said")
)

// exit says an error, and which exit code it makes.
func (s streams) exit(err error) int {
	if err != nil && !errors.Is(err, errQuiet) {
		s.fail("%v", err)
	}
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, provision.ErrRefused), errors.Is(err, errQuiet), errors.Is(err, errUnconfirmed):
		return exitDenied
	}
	return exitNotUnderstood
}

func (p *provisionFlags) provision(ctx context.Context, s streams, c *provision.Provisioner) error {
	rendered, plan, err := p.plan(ctx, s, c)
	if err != nil {
		return err
	}
	printPlan(s, plan, p.namespace)
	printScaled(s, plan)
	switch {
	case len(plan.Changes) == 0:
		fmt.Fprintf(s.out, "namespace %s is as it should be\n", rendered.Namespace)
		printMissing(s, rendered.Namespace, plan.Missing)
		return nil
	case p.diff:
		printMissing(s, rendered.Namespace, plan.Missing)
		return errDiffers
	case !p.yes && !s.confirm(fmt.Sprintf("Apply this to namespace %s?", rendered.Namespace)):
		return errUnconfirmed
	}
	ctx, cancel := context.WithTimeout(ctx, provisionTimeout)
	defer cancel()
	if err := c.Apply(ctx, plan); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "namespace %s is provisioned: %s changed\n", rendered.Namespace, counted(len(plan.Changes), "object"))
	printMissing(s, rendered.Namespace, plan.Missing)
	return nil
}

func (p *provisionFlags) plan(ctx context.Context, s streams, c *provision.Provisioner) (*provision.Rendered, *provision.Plan, error) {
	ctx, cancel := context.WithTimeout(ctx, provisionTimeout)
	defer cancel()
	rendered, warning, err := c.Render(ctx, p.role)
	if err != nil {
		return nil, nil, err
	}
	if warning != "" {
		fmt.Fprintf(s.err, "warning: %s\n", warning)
	}
	plan, err := c.Plan(ctx, rendered)
	if err == nil && plan.NewNamespace {
		err = p.judge(ctx, s, rendered)
	}
	return rendered, plan, err
}

// judge says what admission would refuse in a namespace that does not exist yet, where no dry run can ask it. Where the policy in force
// cannot be read, admission says it when the rest has been applied.
func (p *provisionFlags) judge(ctx context.Context, s streams, rendered *provision.Rendered) error {
	file, err := p.policyInForce(ctx)
	if errors.Is(err, fleet.ErrNotInstalled) {
		return nil
	}
	if err != nil {
		fmt.Fprintf(s.err, "warning: the agent is not judged beforehand: %v\n", err)
		return nil
	}
	inForce, err := policy.New(file)
	if err != nil {
		return err
	}
	text, err := rendered.YAML()
	if err != nil {
		return err
	}
	return admitted(&offline.Judge{Policy: inForce, Namespace: rendered.Namespace}, text)
}

// admitted refuses manifests of which one would be denied. What is not understood is left to admission.
func admitted(judge *offline.Judge, manifests []byte) error {
	sources, errs := manifest.Sources([]string{"-"}, bytes.NewReader(manifests))
	for _, source := range sources {
		documents, err := source.Documents()
		errs = append(errs, err)
		for _, d := range documents {
			for _, o := range d.Objects {
				v := judge.Check(o)
				if v.Outcome != offline.Denied {
					continue
				}
				for _, reason := range v.Reasons {
					errs = append(errs, fmt.Errorf("%w: %s %s: %s", provision.ErrRefused, o.GVK.Kind, o.Name, reason))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// changes says what changes of a role's template. The diffs of the objects have shown what is in it.
func changes(template *provision.Change) string {
	switch {
	case template.New:
		return "to be created"
	case len(template.Keys) > 0:
		return strings.Join(template.Keys, ", ") + " to be changed"
	}
	return "its metadata to be changed"
}

// counted is a number of things.
func counted(n int, thing string) string { return fmt.Sprintf("%d %s", n, plural(thing, n)) }

func plural(thing string, n int) string {
	if n == 1 {
		return thing
	}
	return thing + "s"
}

func printPlan(s streams, plan *provision.Plan, system string) {
	for _, change := range plan.Changes {
		fmt.Fprint(s.out, change.Diff)
		if change.Template {
			fmt.Fprintf(s.out, "%s in %s, with which the reaper compares the namespace: %s\n", change.Object, system, changes(&change))
		}
		if change.TakenOver {
			fmt.Fprintf(s.out, "%s is there, and this command's from then on\n", change.Object)
		}
	}
}

// printScaled says what provisioning leaves to autoscalers.
func printScaled(s streams, plan *provision.Plan) {
	for _, left := range plan.Scaled {
		fmt.Fprintf(s.out, "%s: %s is left as it is, since an autoscaler (%s) sets it\n", left.Object, left.Field, left.By)
	}
}

// printMissing names the Secrets that somebody has to make.
func printMissing(s streams, namespace string, missing []provision.SecretUse) {
	for _, secret := range missing {
		without := "the agent does not start without it"
		if secret.Optional {
			without = "the agent goes without it"
		}
		fmt.Fprintf(s.out, "Secret %s is not there, and %s: kubectl -n %s create secret generic %s --from-file=KEY=FILE\n",
			secret.Name, without, namespace, secret.Name)
	}
}

// confirm asks a question, of which only "yes" is an answer that counts.
func (s streams) confirm(question string) bool {
	fmt.Fprintf(s.out, "%s [yes/no] ", question)
	answer, err := bufio.NewReader(s.in).ReadString('\n')
	if err != nil {
		fmt.Fprintln(s.out)
	}
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "yes" || answer == "y"
}

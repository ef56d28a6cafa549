package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/pflag"

	"github.com/dexorder/agent-lifecycle/enforcement"
	"github.com/dexorder/agent-lifecycle/fleet"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

const auditHelp = `What runs is judged as the webhook would judge its next change: what would be refused, by which rule, field and value, and what would
be accepted; what would be warned about; which Pods would not come up again after a restart, also by the Pod Security level of their
namespace; and which agents lack the sidecar or have an older one. Nothing is changed.

The templates of the gateway and of roles are judged as well, as if an agent were made of them now. In the end it says which rules are only
audited, because they are newer than the policy, and which hold only for agents younger than the rule, and since when.

Without --policy the policy in force decides. With it, the answer is what would be new if that one were in force, and the exit code
tells of that alone. Where the system is not installed, everything is judged as after the installation with that policy, or with the
example policy.

With --policy it also says what the reaper would do otherwise: which namespaces, agents, claims and leftovers of agents it would delete
by that policy and not by the one in force, or the other way round, earlier or later, and when at the earliest, as things are now. It
decides as the reaper does, by what that has noted, and its cap counts, unless --namespace says to look at one namespace alone. What can
only be found out once a deletion is under way is not asked: whether the reaper has the rights, and whether a last look keeps the object.
What goes with an agent that deletes itself when it is idle is not the reaper's, and is not listed.

What you have no right to read is named, and not compared. In addition to what the audit reads, this takes the right to list Services and
HorizontalPodAutoscalers, and for leftovers ConfigMaps, Secrets (their metadata) and all that may refer to these; only what decides a
setting that differs is read.

Examples:
  # Before and after an installation
  kubectl agents audit

  # What would a change of the policy do to the agents that run?
  kubectl agents audit --policy policy.yaml

  # For programs
  kubectl agents audit -n dexorder-agents -o json

Exit codes:
  0  nothing would be refused; in a preview: no more than today, and the reaper would delete nothing that it does not delete today
  1  something would be refused, or a Pod would not come up again, or the reaper would delete something newly, or keep less of it
  2  something is not understood, or could not be found out
`

var auditVerb = verb{
	name:    "audit",
	summary: "say of the agents that run which ones the policy, or another one, would refuse",
	help:    auditHelp,
	bind: func(flags *pflag.FlagSet) func(streams) int {
		a := &auditFlags{}
		flags.StringVar(&a.policy, "policy", "", "policy `FILE` to preview")
		flags.StringVarP(&a.output, "output", "o", "text", "`FORMAT`: text or json")
		a.fleetFlags.bind(flags)
		return a.run
	},
}

type auditFlags struct {
	fleetFlags
	policy, output string
}

// auditWriters by the name of the output format.
var auditWriters = map[string]func(io.Writer, fleet.Basis) fleet.Writer{"text": fleet.NewTextWriter, "json": fleet.NewJSONWriter}

func (a *auditFlags) run(s streams) int {
	newWriter, ok := auditWriters[a.output]
	if !ok {
		s.fail("output format %q is unknown; accepted: text, json", a.output)
		return exitNotUnderstood
	}
	ctx, stop := untilInterrupted()
	defer stop()
	audit, basis, err := a.prepare(ctx)
	if err != nil {
		s.fail("%v", err)
		return exitNotUnderstood
	}
	w := newWriter(s.out, basis)
	var summary fleet.Summary
	err = audit.Run(ctx, a.agents, func(r *fleet.Report) error {
		summary.Add(r)
		return w.Report(r)
	})
	deletesMore := false
	if err == nil && a.policy != "" {
		deletesMore, err = a.compareReaping(ctx, audit, w)
	}
	if err == nil {
		err = w.End(summary)
	}
	switch {
	case err != nil:
		s.fail("%v", err)
		return exitNotUnderstood
	case summary.NotUnderstood > 0:
		return exitNotUnderstood
	case summary.Refuses(basis), deletesMore:
		return exitDenied
	}
	return exitOK
}

// prepare finds out what to judge by.
func (a *auditFlags) prepare(ctx context.Context) (*fleet.Audit, fleet.Basis, error) {
	var given []byte
	if a.policy != "" { // a mistake in it is one on any cluster
		_, data, err := readPolicy(a.policy)
		if err != nil {
			return nil, fleet.Basis{}, err
		}
		if _, err := fleet.NewJudge(data, false); err != nil {
			return nil, fleet.Basis{}, fmt.Errorf("%s is not a policy:\n%s", a.policy, indented(err.Error()))
		}
		given = data
	}
	cluster, today, hash, err := a.connect(ctx)
	notInstalled := errors.Is(err, fleet.ErrNotInstalled)
	if err != nil && !notInstalled && !(given != nil && today != nil) { // a namespace may be covered by the new policy alone
		return nil, fleet.Basis{}, err
	}
	audit := &fleet.Audit{Cluster: cluster, By: today}
	var record enforcement.Record
	var problem error
	if !notInstalled {
		record, problem = cluster.RuleTimes(ctx)
	}
	if given == nil && !notInstalled {
		basis := fleet.Basis{Policy: "the policy", Hash: hash, Installed: true}
		basis.DescribeRules(today, record, problem)
		return audit, basis, nil
	}
	basis := fleet.Basis{Policy: a.policy, Installed: !notInstalled, Preview: !notInstalled}
	if given == nil {
		basis.Policy, given = "the example policy", v1alpha1.Example()
	}
	rules, err := cluster.KeepsRestartRules()
	if err != nil {
		return nil, basis, err
	}
	if audit.By, err = fleet.NewJudge(given, rules); err != nil {
		return nil, basis, err
	}
	audit.By.Hold(record, time.Now(), false)
	basis.DescribeRules(audit.By, record, problem)
	audit.Today, basis.Hash = today, v1alpha1.Hash(given)
	if notInstalled {
		audit.PodSecurity = fleet.InstalledPodSecurity()
	}
	if today == nil || !today.Covers(a.agents) {
		err = a.checkCovered(audit.By)
	}
	return audit, basis, err
}

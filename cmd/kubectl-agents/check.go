package main

import (
	"github.com/spf13/pflag"

	"github.com/dexorder/agent-lifecycle/offline"
)

var checkVerb = verb{
	name:    "check",
	summary: "say whether the webhook would admit manifests, and why not",
	help: `Every object is judged as on its creation by an ordinary user, a Deployment after injection. What only
a cluster can tell is not judged, and a warning says so. Kinds that run no Pods are not judged.

A custom kind, such as an Argo Rollout, is not judged by the webhook, but the Pods that its controller makes
are. Where an object of such a kind holds a Pod's spec, which is known by a list of containers with images, it is
judged as those Pods will be, and a warning says by which profile.

Examples:
  # Judge a file, or everything below a directory
  kubectl agents check -f agent.yaml
  kubectl agents check -f manifests/

  # Judge what kustomize renders by your own policy
  kubectl kustomize overlays/prod | kubectl agents check -f - --policy policy.yaml

  # Annotate a pull request from a GitHub workflow
  kubectl agents check -f manifests/ -o github

Exit codes:
  0  all are admitted
  1  any is denied, or the Pods of one of a custom kind would be
  2  something is not understood: a flag, a file, a document, the policy
`,
	bind: bindCheck,
}

// reports by the name of the output format.
var reports = map[string]func(streams, []offline.Verdict) error{
	"text": func(s streams, v []offline.Verdict) error { return offline.WriteText(s.out, v) },
	"json": func(s streams, v []offline.Verdict) error { return offline.WriteJSON(s.out, v) },
	"github": func(s streams, v []offline.Verdict) error {
		if err := offline.WriteText(s.err, v); err != nil {
			return err
		}
		return offline.WriteGitHub(s.out, v)
	},
}

func bindCheck(flags *pflag.FlagSet) func(streams) int {
	var in input
	in.bind(flags)
	output := flags.StringP("output", "o", "text", "`FORMAT`: text, json or github")
	return func(s streams) int {
		report, ok := reports[*output]
		if !ok {
			s.fail("output format %q is unknown; accepted: text, json, github", *output)
			return exitNotUnderstood
		}
		return check(&in, report, s)
	}
}

func check(in *input, report func(streams, []offline.Verdict) error, s streams) int {
	judge, err := in.judge()
	if err != nil {
		s.fail("%v", err)
		return exitNotUnderstood
	}
	docs, ok := in.documents(s)
	var verdicts []offline.Verdict
	for _, d := range docs {
		for _, o := range d.Objects {
			verdicts = append(verdicts, judge.Check(o))
		}
	}
	if err := report(s, verdicts); err != nil {
		s.fail("%v", err)
		return exitNotUnderstood
	}
	if !ok {
		return exitNotUnderstood
	}
	return exitCode(verdicts)
}

func exitCode(verdicts []offline.Verdict) int {
	code := exitOK
	for i := range verdicts {
		switch verdicts[i].Outcome {
		case offline.NotUnderstood:
			return exitNotUnderstood
		case offline.Denied, offline.DeniedAsPods:
			code = exitDenied
		}
	}
	return code
}

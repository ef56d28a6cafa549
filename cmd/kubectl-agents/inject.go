package main

import (
	"bytes"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/dexorder/agent-lifecycle/offline"
	"github.com/dexorder/agent-lifecycle/offline/manifest"
)

var injectVerb = verb{
	name:    "inject",
	summary: "print manifests as they would be stored, with the lifecycle's parts",
	help: `Deployments of agents are printed with what the webhook puts in on their creation, everything else
unchanged. Nothing is judged: see kubectl agents check. If anything is not understood, nothing is printed.

Examples:
  # See what the webhook adds
  kubectl agents inject -f agent.yaml --diff

  # Write down what a cluster would store of what kustomize renders
  kubectl kustomize overlays/prod | kubectl agents inject -f - > stored.yaml

Exit codes:
  0  printed
  2  something is not understood: a flag, a file, a document, the policy
`,
	bind: bindInject,
}

// renders by the name of the output format.
var renders = map[string]func([]offline.Injection) ([]byte, error){
	"yaml": renderYAML,
	"json": offline.ToJSON,
}

func bindInject(flags *pflag.FlagSet) func(streams) int {
	var in input
	in.bind(flags)
	diff := flags.Bool("diff", false, "print a unified diff of what is injected instead")
	output := flags.StringP("output", "o", "yaml", "`FORMAT`: yaml or json")
	return func(s streams) int {
		render, ok := renders[*output]
		switch {
		case !ok:
			s.fail("output format %q is unknown; accepted: yaml, json", *output)
			return exitNotUnderstood
		case *diff && flags.Changed("output"):
			s.fail("--diff compares YAML and takes no --output")
			return exitNotUnderstood
		case *diff:
			render = renderDiff
		}
		return inject(&in, render, s)
	}
}

func inject(in *input, render func([]offline.Injection) ([]byte, error), s streams) int {
	judge, err := in.judge()
	if err != nil {
		s.fail("%v", err)
		return exitNotUnderstood
	}
	docs, ok := in.documents(s)
	injections, understood := injectAll(judge, docs, s)
	if !ok || !understood {
		return exitNotUnderstood
	}
	text, err := render(injections)
	if err == nil {
		_, err = s.out.Write(text)
	}
	if err != nil {
		s.fail("%v", err)
		return exitNotUnderstood
	}
	return exitOK
}

func injectAll(judge *offline.Judge, docs []*manifest.Document, s streams) (injections []offline.Injection, ok bool) {
	ok = true
	for _, d := range docs {
		injection, failures := judge.Inject(d)
		for _, f := range failures {
			s.fail("%s", offline.Describe(d, f))
			ok = false
		}
		for _, w := range injection.Warnings {
			fmt.Fprintf(s.err, "warning: %s\n", offline.Describe(d, w))
		}
		injections = append(injections, injection)
	}
	return injections, ok
}

func renderYAML(injections []offline.Injection) ([]byte, error) {
	var b bytes.Buffer
	for i := range injections {
		text, err := injections[i].YAML()
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b.WriteString("---\n")
		}
		b.Write(text)
	}
	return b.Bytes(), nil
}

func renderDiff(injections []offline.Injection) ([]byte, error) {
	var b bytes.Buffer
	for i := range injections {
		diff, err := injections[i].Diff()
		if err != nil {
			return nil, err
		}
		b.WriteString(diff)
	}
	return b.Bytes(), nil
}

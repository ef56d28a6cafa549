package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/dexorder/agent-lifecycle/offline"
	"github.com/dexorder/agent-lifecycle/offline/manifest"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// input is what check and inject have in common: manifests and what to judge them by.
type input struct {
	files     []string
	policy    string
	namespace string
}

func (in *input) bind(flags *pflag.FlagSet) {
	flags.StringArrayVarP(&in.files, "filename", "f", nil,
		"`FILE` with manifests, a directory of them, or - for standard input; may be given more than once")
	flags.StringVar(&in.policy, "policy", "",
		"policy `FILE`; without it the example policy, which allows images of ghcr.io/dexorder")
	flags.StringVarP(&in.namespace, "namespace", "n", "dexorder-agents", "`NAMESPACE` of objects that name none")
}

// judge makes ready what manifests are judged by.
func (in *input) judge() (*offline.Judge, error) {
	if len(in.files) == 0 {
		return nil, errors.New("no manifests; say -f FILE, -f DIRECTORY or -f -")
	}
	if in.namespace == "" {
		return nil, fmt.Errorf("--namespace is empty; accepted: a namespace's name")
	}
	name, data := "the example policy", v1alpha1.Example()
	if in.policy != "" {
		var err error
		if name, data, err = readPolicy(in.policy); err != nil {
			return nil, err
		}
	}
	file, err := v1alpha1.Decode(data)
	if err != nil {
		return nil, fmt.Errorf("%s is not a policy:\n%s", name, indented(err.Error()))
	}
	p, err := policy.New(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &offline.Judge{Policy: p, Namespace: in.namespace}, nil
}

func readPolicy(file string) (name string, data []byte, err error) {
	f, err := os.Open(file)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	// One byte more than is read at most, for Decode to say so.
	data, err = io.ReadAll(io.LimitReader(f, v1alpha1.MaxSize+1))
	return file, data, err
}

func indented(s string) string {
	return "  " + strings.ReplaceAll(s, "\n", "\n  ")
}

// documents reads every manifest that can be read and says which cannot. ok means that all could, and that there were any.
func (in *input) documents(s streams) (docs []*manifest.Document, ok bool) {
	sources, errs := manifest.Sources(in.files, s.in)
	for _, source := range sources {
		found, err := source.Documents()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if len(found) == 0 {
			fmt.Fprintf(s.err, "warning: %s holds no documents\n", source.Name())
		}
		docs = append(docs, found...)
	}
	for _, err := range errs {
		s.fail("%v", err)
	}
	if len(docs) == 0 && len(errs) == 0 {
		s.fail("there are no documents to read")
	}
	return docs, len(docs) > 0 && len(errs) == 0
}

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/dexorder/agent-lifecycle/internal/installation"
)

func main() {
	keep := flag.Bool("keep", os.Getenv("KEEP") == "1", "stay up after the walk, until interrupted (or KEEP=1)")
	program := flag.String("server", "bin/lifecycle-webhook", "the server program to run")
	manifests := flag.String("manifests", "manifests/base", "the manifests to install")
	policy := flag.String("policy", "policy/v1alpha1/example.yaml", "the policy file to begin with")
	programs := flag.String("programs", "bin", "the directory of lifecycle-manager and lifecycle-sidecar")
	agent := flag.String("agent", "demo/agent.yaml", "the agent to deploy")
	flag.Parse()
	log.SetLogger(logr.Discard())

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	began := time.Now()
	d := &demo{out: os.Stdout, agentFile: *agent, programs: *programs, options: installation.Options{
		Program: *program, Manifests: *manifests, Policy: *policy, Flags: []string{"--drain-delay", "2s"},
	}}
	err := d.run(ctx)
	if err == nil {
		fmt.Printf("\nAll of it worked, in %.0f s.\n", time.Since(began).Seconds())
		if *keep {
			if err = d.explainKeep(ctx); err == nil {
				<-ctx.Done()
			}
		}
	}
	if closeErr := d.close(); closeErr != nil {
		err = errors.Join(err, closeErr)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

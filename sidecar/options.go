package sidecar

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// ExitStatus says where the sidecar learns from how a process ended.
type ExitStatus string

// The values of ExitStatus.
const (
	// FromPidfd asks the kernel, which needs Linux 6.15.
	FromPidfd ExitStatus = "pidfd"

	// FromFile believes lifecycle.ExitCodeFile once the process has ended.
	FromFile ExitStatus = "file"

	// Auto is FromPidfd where the kernel can tell, else FromFile.
	Auto ExitStatus = "auto"
)

// ParseExitStatus reads an ExitStatus.
func ParseExitStatus(s string) (ExitStatus, error) {
	if e := ExitStatus(s); slices.Contains([]ExitStatus{FromPidfd, FromFile, Auto}, e) {
		return e, nil
	}
	return "", fmt.Errorf("%q is not one of %s, %s, %s", s, Auto, FromPidfd, FromFile)
}

// Options of a sidecar.
type Options struct {
	// Namespace and Deployment are the agent's. Required.
	Namespace, Deployment string

	// Server is how the API server is reached. Required.
	Server Server

	// ProcDir is where the processes of the Pod are seen. Default: /proc.
	ProcDir string

	// ExitCodeFile is lifecycle.ExitCodeFile unless said otherwise.
	ExitCodeFile string

	// ExitStatus: default Auto.
	ExitStatus ExitStatus

	// MainPID is a process to watch beside those that are found. Zero: none.
	MainPID int

	// DryRun asks for deletions that are judged and not carried out.
	DryRun bool

	// Once ends Run with the first decision: a deletion that was accepted, or an error that says why not.
	Once bool

	// ProofPatience is how long the server may answer "not yet" before an exit counts as not proven. Default: 20 minutes.
	ProofPatience time.Duration

	// Logger gets everything that happens. Required.
	Logger *slog.Logger
}

func (o *Options) complete() error {
	switch {
	case o.Namespace == "":
		return errors.New("namespace: is not set; in a Pod it comes as " + lifecycle.EnvNamespace)
	case o.Deployment == "":
		return errors.New("deployment: is not set; in a Pod it comes as " + lifecycle.EnvDeploymentName)
	case strings.ContainsAny(o.Namespace+o.Deployment, "/?#% "):
		return fmt.Errorf("namespace %q, deployment %q: these are no names of objects", o.Namespace, o.Deployment)
	}
	if o.ProcDir == "" {
		o.ProcDir = "/proc"
	}
	if o.ExitCodeFile == "" {
		o.ExitCodeFile = lifecycle.ExitCodeFile
	}
	if o.ProofPatience == 0 {
		o.ProofPatience = proofPatience
	}
	if o.ExitStatus == "" {
		o.ExitStatus = Auto
	}
	return nil
}

// How the sidecar looks for processes and asks the server.
const (
	// firstRescan and lastRescan bound how often it looks for the agent while there is none: right after a start, or between a
	// crash and the kubelet's restart. An agent is found well before it can have been idle for a minute.
	firstRescan = 50 * time.Millisecond
	lastRescan  = 5 * time.Second

	// eagerAtStart and eagerAfterEnd are for how long it looks that often while something else runs: the containers of a Pod
	// start one after the other, and a kubelet waits for 5 minutes at most before it starts one again.
	eagerAtStart  = time.Minute
	eagerAfterEnd = 6 * time.Minute

	// firstSettled and lastSettled bound how often it looks after that, twice as long each time, for what came beside the
	// agent. Every look wakes the machine up, and what comes late, such as a container whose image took minutes to pull, was
	// waited for as long before.
	firstSettled = 45 * time.Second
	lastSettled  = 12 * time.Minute

	// lateStart is how old a Pod is whose sidecar, if it finds no agent, was itself started again: the agent may have ended
	// meanwhile.
	lateStart = 30 * time.Second

	// firstBackoff and lastBackoff bound the pause between two requests.
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 5 * time.Second

	// maxRetryAfter bounds what a server can ask for.
	maxRetryAfter = time.Minute

	// eagerProof is many times what a kubelet takes to report an exit. Who has waited for so long adds slowBackoff to every
	// pause: either the exit is not the agent's and never proven, or the kubelet is away.
	eagerProof  = 2 * time.Minute
	slowBackoff = 45 * time.Second

	// proofPatience is longer than the Pods of a node without a kubelet are left there.
	proofPatience = 20 * time.Minute
)

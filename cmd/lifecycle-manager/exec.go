package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/dexorder/agent-lifecycle/idle"
	"github.com/dexorder/agent-lifecycle/idle/supervisor"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// envRunDir replaces lifecycle.RunDir, for agents outside a Pod.
const envRunDir = "LIFECYCLE_RUN_DIR"

func defaultRunDir() string {
	if dir := os.Getenv(envRunDir); dir != "" {
		return dir
	}
	return lifecycle.RunDir
}

func socket(runDir string) string { return filepath.Join(runDir, filepath.Base(lifecycle.SocketFile)) }

// shareRunDir tells the programs that this one starts where the manager is: they would look in their own default,
// find none there, and what they do would count for nothing.
func shareRunDir(runDir string) error {
	if runDir == defaultRunDir() {
		return nil
	}
	runDir, err := filepath.Abs(runDir) // they may start elsewhere
	if err != nil {
		return err
	}
	return os.Setenv(envRunDir, runDir)
}

// execute runs an agent. Nothing but a mistake in how it was called keeps the agent from running.
func execute(args []string, stdout io.Writer) (int, error) {
	var runDir, listen string
	hold := supervisor.DefaultHold
	set := flagSet("exec", &runDir)
	set.StringVar(&listen, "listen", "", fmt.Sprintf("serve status, metrics, events, activity and snooze there as well, for the gateway, such as :%d",
		lifecycle.ManagerPort))
	set.DurationVar(&hold, "hold", hold, "how long to wait for the Pod's deletion if an earlier run in it ended with 42")
	words, command, err := parse(set, args, stdout)
	if err != nil {
		return 0, err
	}
	if len(command) == 0 || len(words) > 0 {
		return 0, usagef("exec: accepted is exec [flags] -- COMMAND...")
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil)).With("component", "lifecycle-manager")
	config, err := idle.FromEnv(os.Getenv)
	if err != nil {
		// An agent that cannot be told when to stop does not stop.
		config.Enabled = false
		log.Error("The environment is not understood: idle shutdown is off", "error", err)
	}
	if err := shareRunDir(runDir); err != nil {
		config.Enabled = false
		log.Error("The agent cannot be told where its manager is: idle shutdown is off", "error", err)
	}
	own, err := listenUnix(socket(runDir))
	if err != nil {
		// An agent that cannot say that it works is taken to work.
		config.Enabled = false
		log.Error("The socket cannot be served: idle shutdown is off", "error", err)
	}
	manager := idle.New(config)
	serve(manager, own, listen, log)
	exitCode := filepath.Join(runDir, filepath.Base(lifecycle.ExitCodeFile))
	if _, err := os.Stat(runDir); err != nil {
		log.Warn("There is no run directory: the exit code is left nowhere", "error", err)
		exitCode = ""
	}
	return supervisor.Run(supervisor.Options{
		Command: command, Manager: manager, Config: config, ExitCodeFile: exitCode, Hold: hold, Logger: log,
	}), nil
}

// serve serves the API as long as the process lives, on the agent's own socket if there is one. Where it cannot, the agent
// runs all the same.
func serve(manager *idle.Manager, own net.Listener, listen string, log *slog.Logger) {
	if own != nil {
		go serveOn(own, func(l net.Listener) error { return idle.ServeSocket(l, manager) }, log)
	}
	if listen == "" {
		return
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		log.Warn("The network cannot be served", "listen", listen, "error", err)
		return
	}
	verifier, err := idle.GatewayVerifier(os.Getenv)
	if err != nil {
		// Activity that cannot be told from the gateway's is taken: else an agent in use would be stopped.
		log.Error("The gateway's key is not understood: unsigned activity from the network is taken", "error", err)
	}
	go serveOn(listener, func(l net.Listener) error { return idle.ServeNetwork(l, manager, verifier, log) }, log)
}

func serveOn(listener net.Listener, serve func(net.Listener) error, log *slog.Logger) {
	if err := serve(listener); err != nil {
		log.Warn("Serving has ended", "address", listener.Addr().String(), "error", err)
	}
}

// listenUnix takes the place of a socket that a predecessor has left. Processes of the agent may run as other users, so all
// may connect: whoever gets here is in the agent's container.
func listenUnix(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	return listener, os.Chmod(path, 0o666)
}

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/dexorder/agent-lifecycle/idle"
)

// lease takes a lease, or holds it while a command runs. The lease ends with its time if this process is killed.
func lease(ctx context.Context, args []string, stdout io.Writer) (int, error) {
	var runDir, owner string
	ttl := 5 * time.Minute
	set := flagSet("lease", &runDir)
	ownerFlag(set, &owner)
	set.DurationVar(&ttl, "ttl", ttl, "how long it holds; while a command runs it is renewed")
	words, command, err := parse(set, args, stdout)
	if err != nil {
		return 0, err
	}
	if len(words) != 1 {
		return 0, usagef("lease: accepted is lease ID [--ttl 5m] [-- COMMAND...]")
	}
	if len(command) > 0 {
		// Two commands under leases of the same id: the end of one must not end the other's.
		owner = strings.TrimPrefix(owner+":lease-"+rand.Text(), ":")
	}
	client, id := idle.NewClient(socket(runDir)).ForOwner(owner), words[0]
	take := func() (time.Time, error) {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		return client.Lease(ctx, id, ttl)
	}
	until, err := take()
	if len(command) == 0 {
		if err == nil {
			_, err = fmt.Fprintf(stdout, "holds until %s\n", until.Local().Format(time.RFC3339))
		}
		return 0, err
	}
	if err != nil {
		// The work goes on: it is worth more than its lease.
		fmt.Fprintln(os.Stderr, "lifecycle-manager: lease:", err)
	}
	if err := shareRunDir(runDir); err != nil {
		return 0, err
	}
	return holdWhile(command, ttl, take, func() {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		_ = client.RemoveTrigger(ctx, id) // it ends by itself
	})
}

// holdWhile renews a lease until the command has ended, and returns the command's exit code.
func holdWhile(command []string, ttl time.Duration, renew func() (time.Time, error), release func()) (int, error) {
	defer release()
	child := exec.Command(command[0], command[1:]...) //nolint:gosec // Running it is what was asked for.
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := child.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	tick := time.NewTicker(max(ttl/3, time.Second/2))
	defer tick.Stop()
	for {
		select {
		case sig := <-signals:
			_ = child.Process.Signal(sig) // it may have ended already
		case <-tick.C:
			if _, err := renew(); err != nil {
				fmt.Fprintln(os.Stderr, "lifecycle-manager: lease:", err)
			}
		case err := <-ended:
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
					return 128 + int(status.Signal()), nil
				}
				return exit.ExitCode(), nil
			}
			return 0, err
		}
	}
}

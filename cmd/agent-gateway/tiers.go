package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// readAgain is how often the policy file is read again.
const readAgain = time.Minute

// tiers are the policy file's.
type tiers struct {
	file   string
	log    *slog.Logger
	policy atomic.Pointer[v1alpha1.LifecyclePolicy]
}

func newTiers(file string, log *slog.Logger) (*tiers, error) {
	t := &tiers{file: file, log: log}
	if err := t.read(); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *tiers) read() error {
	data, err := os.ReadFile(t.file)
	if err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	policy, err := v1alpha1.Decode(data)
	if err != nil {
		return fmt.Errorf("policy %s: %w", t.file, err)
	}
	t.policy.Store(policy)
	return nil
}

// Run reads the file again until ctx ends. One with mistakes leaves the last good one in force.
func (t *tiers) Run(ctx context.Context) error {
	tick := time.NewTicker(readAgain)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := t.read(); err != nil {
				t.log.Error("The policy file changes nothing", "error", err)
			}
		}
	}
}

// DeletesStorage implements gateway.Tiers.
func (t *tiers) DeletesStorage(userType lifecycle.UserType) bool {
	return t.policy.Load().Tiers[userType].Storage == v1alpha1.StorageDelete
}

// StopsWhenIdle implements gateway.Tiers.
func (t *tiers) StopsWhenIdle(userType lifecycle.UserType) bool {
	return t.policy.Load().Tiers[userType].Shutdown == v1alpha1.ShutdownWhenIdle
}

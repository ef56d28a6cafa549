package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dexorder/agent-lifecycle/activity"
)

// readKeysAgain is how often the directory of keys is read again. The kubelet takes about a minute to change it.
const readKeysAgain = 10 * time.Second

// activityKeys keeps a signer's keys as they are in a directory, which is a mounted Secret. The Secret may come later
// than the gateway, and until then nothing is signed.
type activityKeys struct {
	dir    string
	signer *activity.Signer
	log    *slog.Logger

	// changed is called when there are other keys than before. Nil: nobody is told.
	changed func()

	// logged is what was said last of the directory.
	logged string
}

func newActivityKeys(dir, instance string, registry prometheus.Registerer, log *slog.Logger) *activityKeys {
	k := &activityKeys{dir: dir, signer: activity.NewSigner(instance), log: log}
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "agent_lifecycle_gateway_activity_keys", Help: "Keys by which activity is signed; 0: it is not signed.",
	}, func() float64 { return float64(k.signer.Keys()) }))
	k.read()
	return k
}

// Run reads the directory again until ctx ends.
func (k *activityKeys) Run(ctx context.Context) error {
	if k.dir == "" {
		return nil
	}
	tick := time.NewTicker(readKeysAgain)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			k.read()
		}
	}
}

// read takes the keys up. While none can be read those that were stay: agents that are in use know their public halves.
func (k *activityKeys) read() {
	if k.dir == "" {
		k.say(slog.LevelWarn, "Activity is not signed: --activity-keys is not set", nil)
		return
	}
	keys, err := readKeys(k.dir)
	if len(keys) > 0 && k.signer.SetKeys(keys) && k.changed != nil {
		k.changed()
	}
	switch {
	case k.signer.Keys() == 0:
		k.say(slog.LevelWarn, "Activity is not signed: there is no key", err)
	case err != nil:
		k.say(slog.LevelError, "Not every key can be read", err)
	default:
		k.say(slog.LevelInfo, "Activity is signed", nil)
	}
}

// say logs what is news.
func (k *activityKeys) say(level slog.Level, message string, err error) {
	now := fmt.Sprint(message, err, k.signer.Keys())
	if now == k.logged {
		return
	}
	k.logged = now
	k.log.Log(context.Background(), level, message, "directory", k.dir, "keys", k.signer.Keys(), "error", err)
}

// readKeys returns the keys that can be read, and what is wrong with the others.
func readKeys(dir string) ([]ed25519.PrivateKey, error) {
	var keys []ed25519.PrivateKey
	var errs []error
	for _, pattern := range []string{"activity.key", "activity-*.key"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern)) // sorted
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			key, err := activity.ParsePrivateKey(text)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", file, err))
				continue
			}
			keys = append(keys, key)
		}
	}
	return keys, errors.Join(errs...)
}

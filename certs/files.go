package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// pollInterval finds what a watch of directories misses: file systems without events, a directory made anew.
	pollInterval = 10 * time.Second

	// quiet lets a swap of several links finish before the files are read.
	quiet = 50 * time.Millisecond
)

// pairFiles follows a certificate and its key on disk. It watches their directories, as the kubelet replaces a link
// beside the files and a watch of the files themselves would stay with the old ones.
type pairFiles struct {
	certFile, keyFile string
	log               *slog.Logger
	// failed hears why the pair does not load.
	failed func(error)

	certPEM, keyPEM []byte
	lastError       string
}

// run sends every new pair that loads until ctx ends.
func (p *pairFiles) run(ctx context.Context, pairs chan<- *tls.Certificate) error {
	events, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch files: %w", err)
	}
	defer events.Close()

	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	for {
		p.watch(events)
		pair, err := p.read()
		p.report(err)
		if pair != nil {
			select {
			case <-ctx.Done():
				return nil
			case pairs <- pair:
			}
		}
		var retry <-chan time.Time
		if err != nil {
			retry = time.After(retryDelay)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
		case <-retry:
		case err := <-events.Errors:
			p.log.Warn("Watching the certificate's files failed, polling them", "interval", pollInterval, "err", err)
		case <-events.Events:
			drain(ctx, events.Events)
		}
	}
}

// watch adds the directories. Adding one twice does nothing, and a missing one is left to the next poll.
func (p *pairFiles) watch(events *fsnotify.Watcher) {
	for _, dir := range slices.Compact([]string{filepath.Dir(p.certFile), filepath.Dir(p.keyFile)}) {
		if err := events.Add(dir); err != nil {
			p.log.Debug("Cannot watch the certificate's directory", "directory", dir, "err", err)
		}
	}
}

func drain(ctx context.Context, events <-chan fsnotify.Event) {
	calm := time.After(quiet)
	for {
		select {
		case <-ctx.Done():
			return
		case <-calm:
			return
		case <-events:
		}
	}
}

// read returns the pair if it is another than the last that loaded, else nil.
func (p *pairFiles) read() (*tls.Certificate, error) {
	certPEM, err := os.ReadFile(p.certFile)
	if err != nil {
		return nil, err
	}
	keyPEM, err := os.ReadFile(p.keyFile)
	if err != nil {
		return nil, err
	}
	if bytes.Equal(certPEM, p.certPEM) && bytes.Equal(keyPEM, p.keyPEM) {
		return nil, nil
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", p.certFile, p.keyFile, err)
	}
	p.certPEM, p.keyPEM = certPEM, keyPEM
	return &pair, nil
}

// report logs a failure once, however often it is met.
func (p *pairFiles) report(err error) {
	switch {
	case err == nil:
		p.lastError = ""
	case err.Error() != p.lastError:
		p.failed(err)
		p.lastError = err.Error()
		p.log.Error("Cannot load the certificate; what was in service stays there", "err", err)
	}
}

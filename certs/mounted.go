package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	admissionregistrationclient "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
	"k8s.io/client-go/rest"
)

// MountedOptions configures NewMounted.
type MountedOptions struct {
	// CertFile and KeyFile are PEM files; CertFile may go on with intermediates. Required. They need not exist yet.
	CertFile, KeyFile string
	// Config reaches the API server, to read Registrations. Without it there is nothing to wait for, and a new pair is
	// served at once. The rights needed are list and watch of mutatingwebhookconfigurations and
	// validatingwebhookconfigurations, always selected by name, so that resourceNames can grant them.
	Config *rest.Config
	// Registrations must verify a new leaf before it is served. Required with Config.
	Registrations Registrations
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// Settle is how long a new leaf waits once all bundles trust it; DefaultSettle when zero.
	Settle time.Duration
}

func (o *MountedOptions) complete() error {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	var errs []error
	if o.CertFile == "" || o.KeyFile == "" {
		errs = append(errs, errors.New("CertFile, KeyFile: required"))
	}
	if named := len(o.Registrations.Mutating)+len(o.Registrations.Validating) > 0; named != (o.Config != nil) {
		errs = append(errs, errors.New("options Config, Registrations: both or neither"))
	}
	if o.Settle < 0 {
		errs = append(errs, fmt.Errorf("option Settle %s: must not be negative", o.Settle))
	}
	return errors.Join(errs...)
}

// mounted reads its candidates from files and leaves the registrations to others.
type mounted struct {
	*keeper
	files   *pairFiles
	watcher *watcher
	wake    chan struct{}
}

// NewMounted returns a source that serves a pair of files and follows their changes, such as the kubelet's swap of a
// mounted Secret. A pair that does not load leaves the one before in service.
func NewMounted(options MountedOptions) (Source, error) {
	if err := options.complete(); err != nil {
		return nil, fmt.Errorf("mounted certificate: %w", err)
	}
	m := &mounted{
		keeper:  newKeeper(options.Logger, options.Settle),
		wake:    make(chan struct{}, 1),
		watcher: &watcher{log: options.Logger},
	}
	m.files = &pairFiles{certFile: options.CertFile, keyFile: options.KeyFile, log: options.Logger, failed: m.lacking}
	m.lacking(fmt.Errorf("%s and %s have not been read", options.CertFile, options.KeyFile))
	if options.Config != nil {
		client, err := admissionregistrationclient.NewForConfig(options.Config)
		if err != nil {
			return nil, fmt.Errorf("mounted certificate: Config: %w", err)
		}
		m.watcher = newWatcher(client, options.Registrations, options.Logger, m.wakeUp)
	}
	return m, nil
}

func (m *mounted) wakeUp() {
	select {
	case m.wake <- struct{}{}:
	default: // it is about to look anyway
	}
}

// Run implements Source.
func (m *mounted) Run(ctx context.Context) error {
	pairs := make(chan *tls.Certificate)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return m.files.run(ctx, pairs) })
	group.Go(func() error { m.watcher.run(ctx); return nil })
	group.Go(func() error { m.loop(ctx, pairs); return nil })
	if err := group.Wait(); err != nil {
		return fmt.Errorf("mounted certificate: %w", err)
	}
	return nil
}

func (m *mounted) loop(ctx context.Context, pairs <-chan *tls.Certificate) {
	var candidate *tls.Certificate
	for {
		wait := lookAgain
		if candidate != nil {
			if again := m.consider(candidate, m.watcher.snapshot(), nil); !again.IsZero() {
				wait = min(wait, max(again.Sub(m.now()), 0))
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case candidate = <-pairs:
		case <-m.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

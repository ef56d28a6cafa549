package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	servertls "github.com/cert-manager/cert-manager/pkg/server/tls"
	"github.com/cert-manager/cert-manager/pkg/server/tls/authority"
	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	admissionregistrationclient "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
)

const (
	defaultCADuration   = 365 * 24 * time.Hour
	defaultLeafDuration = 7 * 24 * time.Hour

	// caCommonName tells our CAs from others in a bundle, so that only ours are ever retired before they expire.
	caCommonName = "agent-lifecycle-webhook-ca"

	// lookAgain bounds how long anything goes unnoticed that no event tells: CAs due for removal, a suspended machine.
	lookAgain = 10 * time.Minute

	requestTimeout = 10 * time.Second
	retryDelay     = time.Second
)

// SelfManagedOptions configures NewSelfManaged.
type SelfManagedOptions struct {
	// Config reaches the API server. Required. The rights needed there are
	//
	//	secrets, in SecretNamespace: create; and for the one named SecretName get, list, watch, update
	//	mutatingwebhookconfigurations, validatingwebhookconfigurations: list, watch, patch for those in Registrations
	//
	// where list and watch are always selected by name, so that resourceNames can grant them.
	Config *rest.Config
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// SecretNamespace and SecretName are where the replicas share the CA. Required. The Secret is made when it is
	// missing, and a new CA too; deleting it is how to force a rotation.
	SecretNamespace, SecretName string
	// DNSNames go into the leaf: NAME.NAMESPACE.svc of the webhook's Service. Required.
	DNSNames []string
	// Registrations get their caBundle written by this source. Required. Manifests should leave caBundle out.
	Registrations Registrations
	// CADuration is how long a CA is valid, 365 days by default. It is replaced after two thirds of that.
	CADuration time.Duration
	// LeafDuration is how long a leaf is valid, 7 days by default, replaced after two thirds; less than CADuration.
	LeafDuration time.Duration
	// Settle is how long a new leaf waits once all bundles trust it; DefaultSettle when zero.
	Settle time.Duration
}

func (o *SelfManagedOptions) complete() error {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.CADuration == 0 {
		o.CADuration = defaultCADuration
	}
	if o.LeafDuration == 0 {
		o.LeafDuration = defaultLeafDuration
	}
	var errs []error
	if o.Config == nil {
		errs = append(errs, errors.New("option Config: required"))
	}
	if o.SecretNamespace == "" || o.SecretName == "" {
		errs = append(errs, errors.New("options SecretNamespace, SecretName: required"))
	}
	if len(o.DNSNames) == 0 {
		errs = append(errs, errors.New("option DNSNames: at least one required, such as NAME.NAMESPACE.svc of the Service"))
	}
	if len(o.Registrations.Mutating)+len(o.Registrations.Validating) == 0 {
		errs = append(errs, errors.New("option Registrations: at least one webhook configuration required"))
	}
	if o.LeafDuration < 0 || o.CADuration <= o.LeafDuration {
		errs = append(errs, fmt.Errorf("option LeafDuration %s: must be positive and less than CADuration %s",
			o.LeafDuration, o.CADuration))
	}
	if o.Settle < 0 {
		errs = append(errs, fmt.Errorf("option Settle %s: must not be negative", o.Settle))
	}
	return errors.Join(errs...)
}

// selfManaged runs cert-manager's dynamic authority, which serves the CA's leaf at once when the CA changes, and puts
// the keeper between it and the handshakes.
type selfManaged struct {
	*keeper
	options  SelfManagedOptions
	secrets  coreclient.SecretInterface
	watcher  *watcher
	injector *injector
	leaves   *servertls.DynamicSource
	signer   *wakingAuthority
	wake     chan struct{}

	// What follows belongs to the goroutine in loop.
	candidate   *tls.Certificate
	candidateCA *x509.Certificate
	servedCA    *x509.Certificate
	secretCA    *x509.Certificate
	secretSince time.Time
}

// NewSelfManaged returns a source that signs its own certificates. Replicas with the same options share one CA, may
// start at the same moment, and each write the caBundle of the configurations. CAs of other replicas stay in there
// until nobody can be serving a leaf of theirs.
func NewSelfManaged(options SelfManagedOptions) (Source, error) {
	if err := options.complete(); err != nil {
		return nil, fmt.Errorf("self-managed certificate: %w", err)
	}
	core, err := coreclient.NewForConfig(options.Config)
	if err != nil {
		return nil, fmt.Errorf("self-managed certificate: Config: %w", err)
	}
	registrations, err := admissionregistrationclient.NewForConfig(options.Config)
	if err != nil {
		return nil, fmt.Errorf("self-managed certificate: Config: %w", err)
	}
	s := &selfManaged{
		keeper:   newKeeper(options.Logger, options.Settle),
		options:  options,
		secrets:  core.Secrets(options.SecretNamespace),
		injector: newInjector(registrations, options.Logger),
		wake:     make(chan struct{}, 1),
	}
	s.watcher = newWatcher(registrations, options.Registrations, options.Logger, s.wakeUp)
	s.signer = &wakingAuthority{
		DynamicAuthority: &authority.DynamicAuthority{
			SecretNamespace: options.SecretNamespace,
			SecretName:      options.SecretName,
			RESTConfig:      options.Config,
			CommonName:      caCommonName,
			CADuration:      options.CADuration,
			LeafDuration:    options.LeafDuration,
		},
		wake: s.wakeUp,
	}
	s.leaves = &servertls.DynamicSource{
		DNSNames: options.DNSNames, Authority: s.signer, RetryInterval: 250 * time.Millisecond,
	}
	s.lacking(fmt.Errorf("none was signed; the CA is kept in secret %s/%s", options.SecretNamespace, options.SecretName))
	return s, nil
}

// wakingAuthority tells when a leaf was signed; DynamicSource itself has no way to say so.
type wakingAuthority struct {
	*authority.DynamicAuthority
	wake   func()
	signed atomic.Pointer[x509.Certificate]
}

func (a *wakingAuthority) Sign(template *x509.Certificate) (*x509.Certificate, error) {
	leaf, err := a.DynamicAuthority.Sign(template)
	if err == nil {
		a.signed.Store(leaf)
		a.wake()
	}
	return leaf, err
}

func (s *selfManaged) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default: // it is about to look anyway
	}
}

// Run implements Source.
func (s *selfManaged) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		// The library reports every retry as information; V lowers that to slog's debug level.
		return s.leaves.Start(logr.NewContext(ctx, logr.FromSlogHandler(s.options.Logger.Handler()).V(4)))
	})
	group.Go(func() error { s.watcher.run(ctx); return nil })
	group.Go(func() error { s.loop(ctx); return nil })
	if err := group.Wait(); err != nil {
		return fmt.Errorf("self-managed certificate: %w", err)
	}
	return nil
}

func (s *selfManaged) loop(ctx context.Context) {
	for {
		timer := time.NewTimer(s.step(ctx))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-s.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// step does what can be done now and returns how long it may take, if nothing happens, until there is more to do. The
// order matters: a CA is known before its leaf is considered, and registered before its leaf can be served.
func (s *selfManaged) step(ctx context.Context) time.Duration {
	wait := lookAgain
	registrations := s.watcher.snapshot()
	switch err := s.learn(ctx); {
	case errors.Is(err, errNotTakenOver):
		wait = takeOver
	case err != nil:
		s.log.Warn("Cannot tell the CA of the newest certificate", "retry", retryDelay, "err", err)
		s.lacking(err)
		wait = retryDelay
	}
	again, trouble := s.injector.inject(ctx, registrations, s.authorities(), s.now())
	if again > 0 {
		wait = min(wait, again)
	}
	if s.candidate == nil {
		return wait
	}
	if again := s.consider(s.candidate, registrations, trouble); !again.IsZero() {
		wait = min(wait, max(again.Sub(s.now()), 0))
	}
	if served, _ := s.current(); served == s.candidate {
		s.servedCA = s.candidateCA
	}
	return wait
}

// takeOver is about as long as DynamicSource needs from the signature to having the pair.
const takeOver = 20 * time.Millisecond

var errNotTakenOver = errors.New("the newest leaf was signed this moment")

// learn takes up the newest leaf together with its CA. The library does not tell the CA, so a leaf that the one known
// has not signed makes it read the Secret. If that has moved on in between there is no candidate, as the next leaf is
// being signed already, but its CA is known and can be registered.
func (s *selfManaged) learn(ctx context.Context) error {
	signed := s.signer.signed.Load()
	if signed == nil || s.candidate != nil && signed.Equal(s.candidate.Leaf) {
		return nil
	}
	leaf, err := s.leaves.GetCertificate(nil)
	if err != nil || !signed.Equal(leaf.Leaf) {
		return errNotTakenOver
	}
	if s.secretCA == nil || signed.CheckSignatureFrom(s.secretCA) != nil {
		ca, err := s.readCA(ctx)
		if err != nil {
			return err
		}
		if s.secretCA == nil || !ca.Equal(s.secretCA) {
			s.secretCA, s.secretSince = ca, s.now()
		}
		if err := signed.CheckSignatureFrom(ca); err != nil {
			return fmt.Errorf("the CA in secret %s/%s has not signed it: %w",
				s.options.SecretNamespace, s.options.SecretName, err)
		}
	}
	s.candidate, s.candidateCA = leaf, s.secretCA
	return nil
}

func (s *selfManaged) readCA(ctx context.Context) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	secret, err := s.secrets.Get(ctx, s.options.SecretName, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	found := parseBundle(secret.Data[corev1.TLSCertKey])
	if len(found) == 0 {
		return nil, fmt.Errorf("secret %s/%s: %s holds no certificate",
			s.options.SecretNamespace, s.options.SecretName, corev1.TLSCertKey)
	}
	return found[0], nil
}

func (s *selfManaged) authorities() authorities {
	a := authorities{
		current:      s.secretCA,
		currentSince: s.secretSince,
		// Twice what it takes the last leaf of a replaced CA to expire, for replicas that still run with other options.
		retention: 2 * s.options.LeafDuration,
	}
	for _, ca := range []*x509.Certificate{s.servedCA, s.candidateCA, s.secretCA} {
		if ca != nil && !contains(a.required, ca) {
			a.required = append(a.required, ca)
		}
	}
	return a
}

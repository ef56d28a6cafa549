package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/discovery"
	clientadmissionregistrationv1 "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
	clientappsv1 "k8s.io/client-go/kubernetes/typed/apps/v1"
	clientcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/dexorder/agent-lifecycle/breaker"
	"github.com/dexorder/agent-lifecycle/certs"
	"github.com/dexorder/agent-lifecycle/enforcement"
	"github.com/dexorder/agent-lifecycle/internal/program"
	"github.com/dexorder/agent-lifecycle/keep"
	"github.com/dexorder/agent-lifecycle/keys"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/webhook"
)

// serveCommand runs the server until a signal to stop. A second signal ends the process at once.
func serveCommand(args []string, stdout, stderr io.Writer) error {
	f, err := parseFlags(args, stdout, stderr)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop) // from then on signals do what they do by default
	return serve(ctx, f, f.logs.NewLogger(stderr))
}

// serve wires the parts together and runs them until ctx ends. The others go on until the server has given its last
// answer.
func serve(ctx context.Context, f *flags, log *slog.Logger) error {
	config, err := program.RESTConfig(f.kubeconfig, userAgent())
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	metrics := webhook.NewMetrics(registry, program.Version(version))
	policies, err := webhook.LoadPolicyFile(f.policy, metrics, log)
	if err != nil {
		return err
	}
	certificate, err := newCertificate(f, config, log)
	if err != nil {
		return fmt.Errorf("serving certificate: %w", err)
	}
	registry.MustRegister(certs.NewCollector(certificate))
	cluster, err := webhook.NewCluster(config, policies.Coverage(), log)
	if err != nil {
		return err
	}
	versions, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return fmt.Errorf("discovery: %w", err)
	}
	coverage := webhook.NewCoverage(cluster.Live(), f.configuration, policies.Coverage(), metrics, log)
	coverage.Gateway = policies.Gateway
	restartRules := webhook.NewRestartRules(versions, cluster, metrics, log)
	core, err := clientcorev1.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	registrations, err := clientadmissionregistrationv1.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	keeper := keep.New(registrations, log)
	activityKeys := keys.New(core.Secrets(f.namespace), rand.Reader, log)
	events := webhook.NewEvents(core, instance(), metrics, log)
	circuitBreaker := newBreaker(core, f.namespace, policies, registry, log)
	apps, err := clientappsv1.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	rules := enforcement.NewTracker(enforcement.Options{
		ConfigMaps: core.ConfigMaps(f.namespace), Sibling: breaker.Name, Deployments: apps.Deployments(f.namespace), Server: f.service,
		Policy: policies.File, Now: time.Now, Logger: log,
	})
	confirmer := webhook.NewConfirmer(webhook.ConfirmerOptions{
		Deleted: cluster.Deleted, GiveBack: circuitBreaker.GiveBack, Announcer: events, Metrics: metrics, Logger: log, Now: time.Now,
	})
	clientCA, err := loadClientCA(f.clientCA, log)
	if err != nil {
		return err
	}
	policies.OnChange = func(covered []v1alpha1.Namespaces) {
		cluster.Cover(covered)
		coverage.Cover(covered)
		rules.PolicyChanged()
	}
	server, err := webhook.NewServer(webhook.Options{
		Admission: &webhook.Admission{
			Policies: policies, Facts: cluster, Callers: cluster, RestartRules: restartRules, Breaker: circuitBreaker, Announcer: confirmer,
			Metrics: metrics, Logger: log, RuleTimes: rules, ActivityKey: activityKeys.ActivityKey,
		},
		GetCertificate: certificate.GetCertificate,
		ClientCA:       clientCA,
		Gatherer:       registry,
		Checks: []webhook.Check{
			{Name: "certificate", Run: certificate.Ready},
			{Name: "cluster", Run: cluster.Ready},
			{Name: "policy", Run: policies.Rejected, Notice: true},
			{Name: "rules", Run: func() error { return errors.Join(policies.AuditedOnly(), rules.Check()) }, Notice: true},
			{Name: "coverage", Run: coverage.Check, Notice: true},
			{Name: "keep", Run: keeper.Check, Notice: true},
			{Name: "keys", Run: activityKeys.Check, Notice: true},
		},
		MaxBody: f.maxBody, MaxInFlight: f.maxInFlight, DrainDelay: f.drainDelay,
	})
	if err != nil {
		return err
	}
	admission, health, err := listen(f)
	if err != nil {
		return err
	}
	components := []program.Component{
		policies, certificate, cluster, coverage, restartRules, announcing{confirmer, events}, keeper, rules, activityKeys,
	}
	if clientCA != nil {
		components = append(components, clientCA)
	}
	if f.reaper {
		r, parts, err := newReaper(&f.reaping, reaperParts{
			config: config, core: core, namespace: f.namespace, policies: policies, breaker: circuitBreaker, registry: registry, log: log,
		})
		if err != nil {
			return err
		}
		components = append(append(components, parts...), r)
	} else {
		components = append(components, circuitBreaker.watch(core, f.namespace, log))
	}
	log.Info("Starting", "version", program.Version(version), "policy", f.policy, "certs", f.certs)
	return program.Run(ctx, func(ctx context.Context) error { return server.Run(ctx, admission, health) },
		components...)
}

// announcing runs what writes events for longer than what tells of them.
type announcing struct {
	confirmer *webhook.Confirmer
	events    *webhook.Events
}

// Run implements program.Component.
func (a announcing) Run(ctx context.Context) error {
	writing, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- a.events.Run(writing) }()
	err := a.confirmer.Run(ctx)
	stop()
	return errors.Join(err, <-done)
}

func loadClientCA(path string, log *slog.Logger) (*webhook.ClientCA, error) {
	if path == "" {
		return nil, nil
	}
	ca, err := webhook.LoadClientCA(path, log)
	if err != nil {
		return nil, fmt.Errorf("--client-ca: %w", err)
	}
	return ca, nil
}

// userAgent is how the API server's audit log knows the program.
func userAgent() string { return programName + "/" + program.Version(version) }

func newCertificate(f *flags, config *rest.Config, log *slog.Logger) (certs.Source, error) {
	registrations := certs.Registrations{Mutating: []string{f.configuration}, Validating: []string{f.configuration}}
	if f.certs == certsMounted {
		return certs.NewMounted(certs.MountedOptions{
			CertFile: f.tlsCert, KeyFile: f.tlsKey, Config: config, Registrations: registrations, Logger: log,
		})
	}
	service := f.service + "." + f.namespace + ".svc"
	return certs.NewSelfManaged(certs.SelfManagedOptions{
		Config: config, Logger: log, SecretNamespace: f.namespace, SecretName: f.caSecret,
		DNSNames: append([]string{service, service + ".cluster.local"}, f.dnsNames...), Registrations: registrations,
	})
}

func listen(f *flags) (admission, health net.Listener, err error) {
	if admission, err = net.Listen("tcp", f.listen); err != nil {
		return nil, nil, fmt.Errorf("--listen: %w", err)
	}
	if health, err = net.Listen("tcp", f.healthListen); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("--health-listen: %w", err), admission.Close())
	}
	return admission, health, nil
}

// instance names this server in events: its Pod, or the machine that it runs on.
func instance() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

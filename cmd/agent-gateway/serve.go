package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/dexorder/agent-lifecycle/gateway"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// serveCommand runs the gateway until a signal to stop. A second signal ends the process at once.
func serveCommand(args []string, stdout, stderr io.Writer) error {
	f, err := parseFlags(args, stdout, stderr)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop) // from then on signals do what they do by default
	return serve(ctx, f, newLogger(f, stderr))
}

func newLogger(f *flags, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: f.logLevel}
	var handler slog.Handler = slog.NewJSONHandler(w, options)
	if f.logFormat == "text" {
		handler = slog.NewTextHandler(w, options)
	}
	// What the libraries call information is detail here.
	klog.SetLogger(logr.FromSlogHandler(handler).V(-int(slog.LevelDebug)))
	return slog.New(handler)
}

// serve wires the parts together and runs them until ctx ends.
func serve(ctx context.Context, f *flags, log *slog.Logger) error {
	config, err := restConfig(f.kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	text, err := os.ReadFile(f.template)
	if err != nil {
		return fmt.Errorf("template: %w", err)
	}
	template, err := gateway.ParseTemplate(text)
	if err != nil {
		return err
	}
	policy, err := newTiers(f.policy, log)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	var g *gateway.Gateway
	publisher, err := newPublisher(f.nats, func() []gateway.Notice { return g.Notices() }, registry, log)
	if err != nil {
		return err
	}
	g, err = gateway.New(gateway.Options{
		Client: client, Namespace: f.namespace, Template: template, Tiers: policy,
		DefaultUserType:      lifecycle.UserType(f.userType),
		Authenticator:        gateway.NewTokenReviews(client.AuthenticationV1().TokenReviews(), f.audience, f.allow, time.Now),
		LoopbackWithoutToken: f.loopback, Announcer: published{publisher, time.Now},
		WakeTimeout: f.wakeTimeout, Drain: f.drain, Grace: f.grace, Limits: f.limits,
		Now: time.Now, Metrics: gateway.NewMetrics(registry), Logger: log,
	})
	if err != nil {
		return err
	}
	api, health, err := listen(f)
	if err != nil {
		return err
	}
	if len(f.allow) == 0 && !f.loopback {
		log.Warn("Nobody may call; --allow says who may")
	}
	log.Info("Starting", "version", programVersion(), "listen", api.Addr().String(), "namespace", f.namespace)
	return runAll(ctx, g, api, healthServer(ctx, g, registry), health, policy.Run, publisher.Run)
}

// runAll runs the gateway until ctx ends, and everything else until the gateway has given its last answer.
func runAll(ctx context.Context, g *gateway.Gateway, api net.Listener, server *http.Server, health net.Listener, others ...func(context.Context) error) error {
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, failed := errgroup.WithContext(background)
	for _, run := range others {
		group.Go(func() error { return run(background) })
	}
	group.Go(func() error {
		if err := server.Serve(health); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("--health-listen: %w", err)
		}
		return nil
	})
	running, end := context.WithCancel(ctx)
	defer end()
	context.AfterFunc(failed, end)
	err := g.Run(running, api)
	stop()
	return errors.Join(err, server.Close(), group.Wait())
}

// healthServer answers /healthz, /readyz and /metrics. Once ctx has ended the gateway is not ready any more.
func healthServer(ctx context.Context, g *gateway.Gateway, registry *prometheus.Registry) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		switch err := g.Ready(); {
		case ctx.Err() != nil:
			http.Error(w, "it is stopping", http.StatusServiceUnavailable)
		case err != nil:
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		default:
			fmt.Fprintln(w, "ok")
		}
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
}

func restConfig(kubeconfig string) (*rest.Config, error) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig}
	load := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig
	if kubeconfig == "" {
		load = rest.InClusterConfig
	}
	config, err := load()
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	config.UserAgent = "agent-gateway/" + programVersion()
	config.Timeout = 0 // watches last; look-ups have the deadline of their request
	// The API server itself queues by priority and fairness; how many agents are made is bounded by tier.
	config.QPS = -1
	return config, nil
}

func listen(f *flags) (api, health net.Listener, err error) {
	if api, err = net.Listen("tcp", f.listen); err != nil {
		return nil, nil, fmt.Errorf("--listen: %w", err)
	}
	if f.tlsCert != "" {
		pair := &certificate{certFile: f.tlsCert, keyFile: f.tlsKey, now: time.Now}
		if _, err := pair.get(nil); err != nil {
			return nil, nil, errors.Join(err, api.Close())
		}
		api = tls.NewListener(api, &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: pair.get})
	}
	if health, err = net.Listen("tcp", f.healthListen); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("--health-listen: %w", err), api.Close())
	}
	return api, health, nil
}

// certificate is read from files, and again after a while: somebody else renews it.
type certificate struct {
	certFile, keyFile string
	now               func() time.Time

	mu     sync.Mutex
	read   time.Time
	loaded *tls.Certificate
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now().Sub(c.read) < readAgain {
		return c.loaded, nil
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		if old := c.loaded; old != nil {
			return old, nil // it may just be being replaced
		}
		return nil, fmt.Errorf("--tls-cert %s, --tls-key %s: %w", c.certFile, c.keyFile, err)
	}
	c.loaded = &pair
	c.read = c.now()
	return &pair, nil
}

package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
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
	"k8s.io/client-go/kubernetes"

	"github.com/dexorder/agent-lifecycle/certs"
	"github.com/dexorder/agent-lifecycle/gateway"
	"github.com/dexorder/agent-lifecycle/internal/program"
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
	return serve(ctx, f, f.logs.NewLogger(stderr))
}

// serve wires the parts together and runs them until ctx ends.
func serve(ctx context.Context, f *flags, log *slog.Logger) error {
	config, err := program.RESTConfig(f.kubeconfig, programName+"/"+program.Version(version))
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
	for _, warning := range template.Warnings() {
		log.Warn(warning, "file", f.template)
	}
	policy, err := newTiers(f.policy, log)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	keys := newActivityKeys(f.activityKeys, rand.Text(), registry, log)
	var g *gateway.Gateway
	publisher, err := newPublisher(f.nats, func() []gateway.Notice { return g.Notices() }, registry, log)
	if err != nil {
		return err
	}
	g, err = gateway.New(gateway.Options{
		Client: client, Namespace: f.namespace, Template: template, Tiers: policy,
		DefaultUserType: lifecycle.UserType(f.userType),
		Signer:          keys.signer,
		Authenticator: gateway.NewTokenReviews(client.AuthenticationV1().TokenReviews(), gateway.TokenReviewOptions{
			Audience: f.audience, Allowed: f.allow, Opaque: f.opaqueTokens, Now: time.Now,
		}),
		LoopbackWithoutToken: f.loopback, Announcer: published{publisher, time.Now},
		WakeTimeout: f.wakeTimeout, Drain: f.drain, Grace: f.grace, Limits: f.limits,
		Now: time.Now, Metrics: gateway.NewMetrics(registry), Logger: log,
	})
	if err != nil {
		return err
	}
	keys.changed = g.SignStreamsAnew
	certificate, err := newCertificate(f, log)
	if err != nil {
		return err
	}
	api, health, err := listen(f, certificate)
	if err != nil {
		return err
	}
	if len(f.allow) == 0 && !f.loopback {
		log.Warn("Nobody may call; --allow says who may")
	}
	log.Info("Starting", "version", program.Version(version), "listen", api.Addr().String(), "namespace", f.namespace)
	components := []program.Component{policy, publisher, keys, program.Health{Listener: health, Gatherer: registry, Ready: func() error {
		if ctx.Err() != nil {
			return errors.New("it is stopping")
		}
		return g.Ready()
	}}}
	if certificate != nil {
		components = append(components, certificate)
	}
	return program.Run(ctx, func(ctx context.Context) error { return g.Run(ctx, api) }, components...)
}

// newCertificate returns nil where plain HTTP is served.
func newCertificate(f *flags, log *slog.Logger) (certs.Source, error) {
	if f.tlsCert == "" {
		return nil, nil
	}
	// One that is wrong from the beginning is a mistake of the command line. Later, it may just be being replaced.
	if _, err := tls.LoadX509KeyPair(f.tlsCert, f.tlsKey); err != nil {
		return nil, fmt.Errorf("--tls-cert %s, --tls-key %s: %w", f.tlsCert, f.tlsKey, err)
	}
	return certs.NewMounted(certs.MountedOptions{CertFile: f.tlsCert, KeyFile: f.tlsKey, Logger: log})
}

func listen(f *flags, certificate certs.Source) (api, health net.Listener, err error) {
	if api, err = net.Listen("tcp", f.listen); err != nil {
		return nil, nil, fmt.Errorf("--listen: %w", err)
	}
	if certificate != nil {
		api = tls.NewListener(api, &tls.Config{
			MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: certificate.GetCertificate,
		})
	}
	if health, err = net.Listen("tcp", f.healthListen); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("--health-listen: %w", err), api.Close())
	}
	return api, health, nil
}

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/bench"
)

// webhooks runs a server and registers paths of it for the variant's namespace.
func webhooks(path string, paths ...string) func(context.Context, *benchmark, *variant) error {
	return func(ctx context.Context, b *benchmark, v *variant) error {
		address, err := freeAddress()
		if err != nil {
			return err
		}
		args := []string{"-listen", address, "-tls-cert", b.certificate.certFile, "-tls-key", b.certificate.keyFile}
		if v.refuses {
			policy := filepath.Join(b.dir, v.name+".yaml")
			if err := os.WriteFile(policy, bench.Policy(v.namespace), 0o600); err != nil {
				return err
			}
			args = append(args, "-policy", policy)
		}
		p, err := start(b.dir, path, args...)
		if err != nil {
			return err
		}
		b.programs = append(b.programs, p)
		v.server = process(p.Process.Pid)
		for _, path := range paths {
			if err := b.register(ctx, v, "https://"+address, path); err != nil {
				return err
			}
		}
		return nil
	}
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}

// register calls a path of a server for creates of Deployments in the variant's namespace, which is chosen as the real
// registration does it.
func (b *benchmark) register(ctx context.Context, v *variant, server, path string) error {
	url, none, name := server+path, admissionregistrationv1.SideEffectClassNone, "bench-"+v.name
	clientConfig := admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: b.certificate.bundle}
	rules := []admissionregistrationv1.RuleWithOperations{{
		Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
		Rule: admissionregistrationv1.Rule{
			APIGroups: []string{appsv1.GroupName}, APIVersions: []string{"v1"}, Resources: []string{"deployments"},
		},
	}}
	conditions := []admissionregistrationv1.MatchCondition{
		{Name: "namespace", Expression: fmt.Sprintf("request.namespace == %q", v.namespace)},
	}
	meta := metav1.ObjectMeta{Name: name}
	if path == "/mutate" {
		_, err := b.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(ctx,
			&admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: meta, Webhooks: []admissionregistrationv1.MutatingWebhook{{
				Name: name + ".bench.local", ClientConfig: clientConfig, Rules: rules, MatchConditions: conditions,
				SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
			}}}, metav1.CreateOptions{})
		return err
	}
	_, err := b.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(ctx,
		&admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: meta, Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: name + ".bench.local", ClientConfig: clientConfig, Rules: rules, MatchConditions: conditions,
			SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
		}}}, metav1.CreateOptions{})
	return err
}

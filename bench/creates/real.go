package main

import (
	"context"
	"net"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// realServer runs the real server with the real registrations. They lead straight to it: the address that an
// installation has for several servers would be one hop more than the others have.
func realServer(ctx context.Context, b *benchmark, v *variant) error {
	server, err := b.installation.AddServer(ctx)
	if err != nil {
		return err
	}
	v.server = process(server.PID())
	_, port, err := net.SplitHostPort(server.Listen)
	if err != nil {
		return err
	}
	direct := func(config *admissionregistrationv1.WebhookClientConfig) {
		*config.URL = strings.Replace(*config.URL, b.installation.Address(), net.JoinHostPort("localhost", port), 1)
	}
	const name = "agent-lifecycle"
	mutating, err := b.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for i := range mutating.Webhooks {
		direct(&mutating.Webhooks[i].ClientConfig)
	}
	if _, err := b.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Update(ctx, mutating, metav1.UpdateOptions{}); err != nil {
		return err
	}
	validating, err := b.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for i := range validating.Webhooks {
		direct(&validating.Webhooks[i].ClientConfig)
	}
	_, err = b.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Update(ctx, validating, metav1.UpdateOptions{})
	return err
}

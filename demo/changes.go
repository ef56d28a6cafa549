package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/installation"
)

// changeTimeout bounds how long the walk waits for a change to take effect.
const changeTimeout = 60 * time.Second

// reloadPolicy allows another registry in the policy file and waits until that holds.
func (d *demo) reloadPolicy(ctx context.Context) error {
	policy, err := os.ReadFile(d.installation.PolicyFile)
	if err != nil {
		return err
	}
	const registry = "registry.example.com/*"
	listed := regexp.MustCompile(`(?m)^( *)- ghcr\.io/dexorder/\*$`)
	changed := listed.ReplaceAllString(string(policy), "$0\n$1- "+registry)
	if changed == string(policy) {
		return fmt.Errorf("%s does not list ghcr.io/dexorder/*", d.options.Policy)
	}
	attempt := func(ctx context.Context) error {
		agent, err := d.readAgent()
		if err != nil {
			return err
		}
		agent.Name = "agent-carol"
		agent.Spec.Template.Spec.Containers[0].Image = "registry.example.com/agent:v2"
		return d.client.Create(ctx, agent, client.DryRunAll)
	}
	if err := attempt(ctx); err == nil {
		return errors.New("registry.example.com/agent:v2 was admitted before the policy allowed it")
	}
	d.say("registry.example.com/agent:v2 is refused; now %s goes into the list", registry)
	began := time.Now()
	if err := d.installation.WritePolicy([]byte(changed)); err != nil {
		return err
	}
	// Both servers must have it: one that has not would still refuse now and then.
	for admitted := 0; admitted < 10; {
		if err := attempt(ctx); err != nil {
			admitted = 0
			if time.Since(began) > changeTimeout {
				return fmt.Errorf("still refused %s after the change: %w", changeTimeout, err)
			}
			time.Sleep(20 * time.Millisecond)
			continue
		}
		admitted++
	}
	d.say("admitted %d ms after the file changed", time.Since(began).Milliseconds())
	return nil
}

// rotateCertificate deletes the CA while agents are created, and waits until another one is served.
func (d *demo) rotateCertificate(ctx context.Context) error {
	secret := &corev1.Secret{}
	key := client.ObjectKey{Namespace: installation.SystemNamespace, Name: installation.CASecret}
	if err := d.client.Get(ctx, key, secret); err != nil {
		return err
	}
	before := string(secret.Data[corev1.TLSCertKey])
	leaf, err := d.servedBy(before)
	if err != nil {
		return fmt.Errorf("before the rotation: %w", err)
	}
	t := d.startTraffic(ctx)
	defer t.stop()
	began := time.Now()
	if err := d.client.Delete(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}); err != nil {
		return err
	}
	d.say("the Secret %s is gone; certificate %s is still served", key, leaf)
	for {
		if time.Since(began) > changeTimeout {
			return fmt.Errorf("no certificate of a new CA within %s", changeTimeout)
		}
		time.Sleep(100 * time.Millisecond)
		if err := d.client.Get(ctx, key, secret); apierrors.IsNotFound(err) {
			continue
		} else if err != nil {
			return err
		}
		after := string(secret.Data[corev1.TLSCertKey])
		if after == before {
			continue
		}
		// Each connection meets the next server: two in a row that are of the new CA are both servers.
		first, err := d.servedBy(after)
		if err != nil {
			continue
		}
		if _, err := d.servedBy(after); err == nil {
			leaf = first
			break
		}
	}
	d.say("%.1f s later both servers serve certificate %s of a new CA", time.Since(began).Seconds(), leaf)
	return t.report(d)
}

// restartServers replaces both servers, one after the other, while agents are created.
func (d *demo) restartServers(ctx context.Context) error {
	t := d.startTraffic(ctx)
	defer t.stop()
	for _, old := range d.installation.Servers() {
		began := time.Now()
		if _, err := d.installation.AddServer(ctx); err != nil {
			return err
		}
		if err := d.installation.RemoveServer(old); err != nil {
			return fmt.Errorf("stopping a server: %w", err)
		}
		d.say("a new server is in, an old one has finished and left (%.1f s)", time.Since(began).Seconds())
	}
	return t.report(d)
}

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// traffic creates agents, dry, one after the other, as fast as they are answered.
type traffic struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu       sync.Mutex
	requests int
	failures []error
}

const clients = 2

func (d *demo) startTraffic(ctx context.Context) *traffic {
	running, cancel := context.WithCancel(ctx)
	t := &traffic{cancel: cancel}
	for i := range clients {
		t.done.Go(func() {
			for running.Err() == nil {
				// A request that was sent is waited for: cutting it off would count as a failure of ours.
				t.count(d.createDry(ctx, fmt.Sprintf("agent-traffic-%d", i)))
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	return t
}

func (d *demo) createDry(ctx context.Context, name string) error {
	agent, err := d.readAgent()
	if err != nil {
		return err
	}
	agent.Name = name
	return d.client.Create(ctx, agent, client.DryRunAll)
}

func (t *traffic) count(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.requests++
	if err != nil {
		t.failures = append(t.failures, err)
	}
}

func (t *traffic) stop() {
	t.cancel()
	t.done.Wait()
}

// report stops the traffic and says how it fared. A failure is an error.
func (t *traffic) report(d *demo) error {
	t.stop()
	d.say("meanwhile: %d requests, %d failures", t.requests, len(t.failures))
	if len(t.failures) > 0 {
		return fmt.Errorf("%d of %d requests failed, the first with: %w", len(t.failures), t.requests, t.failures[0])
	}
	if t.requests == 0 {
		return errors.New("no request was made")
	}
	return nil
}

// servedBy makes a connection to the servers' address and returns the serial number of the certificate that is served
// there, if it is of the given CA.
func (d *demo) servedBy(ca string) (string, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(ca)) {
		return "", errors.New("the CA's certificate does not parse")
	}
	dialer := &tls.Dialer{Config: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	connection, err := dialer.DialContext(ctx, "tcp", d.installation.Address())
	if err != nil {
		return "", err
	}
	defer connection.Close()
	serial := connection.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Text(16)
	return serial[:min(8, len(serial))], nil
}

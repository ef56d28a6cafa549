// Command stockserver is the pair of webhooks of package stock behind controller-runtime's webhook server. It is left
// without a manager, so without caches, which a real one would have.
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"log"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
	ctrlwebhook "sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/dexorder/agent-lifecycle/bench/stock"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8443", "address to serve on")
	cert := flag.String("tls-cert", "", "certificate file")
	key := flag.String("tls-key", "", "key file")
	policyFile := flag.String("policy", "", "policy file")
	flag.Parse()
	ctrl.SetLogger(logr.Discard())

	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if err := run(ctx, *listen, *cert, *key, *policyFile); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, listen, certFile, keyFile, policyFile string) error {
	file, err := os.ReadFile(policyFile)
	if err != nil {
		return err
	}
	mutate, validate, err := stock.Webhooks(file)
	if err != nil {
		return err
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return err
	}
	host, portName, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(portName)
	if err != nil {
		return err
	}
	server := ctrlwebhook.NewServer(ctrlwebhook.Options{Host: host, Port: port, TLSOpts: []func(*tls.Config){
		// The pair is read once: without this, the server would want it in a directory to watch.
		func(c *tls.Config) {
			c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }
		},
	}})
	server.Register("/mutate", mutate)
	server.Register("/validate", validate)
	return server.Start(ctx)
}

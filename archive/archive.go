package archive

import (
	"log/slog"
	"time"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	clientcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// Clients are what an Archive asks the cluster with.
type Clients struct {
	// Dynamic reads and writes what is kept, whole.
	Dynamic dynamic.Interface

	// Core reads and writes the archives themselves, and PersistentVolumes.
	Core clientcorev1.CoreV1Interface

	// Metadata lists chunks without their data, and what archives do not hold.
	Metadata metadata.Interface

	// Discovery tells which kinds of objects there are.
	Discovery discovery.DiscoveryInterface
}

// ClientsFor makes all of them.
func ClientsFor(config *rest.Config) (Clients, error) {
	var c Clients
	var err error
	if c.Dynamic, err = dynamic.NewForConfig(config); err != nil {
		return Clients{}, err
	}
	if c.Core, err = clientcorev1.NewForConfig(config); err != nil {
		return Clients{}, err
	}
	if c.Metadata, err = metadata.NewForConfig(config); err != nil {
		return Clients{}, err
	}
	c.Discovery, err = discovery.NewDiscoveryClientForConfig(config)
	return c, err
}

// Options of an Archive. Those are required of which nothing else is said.
type Options struct {
	Clients

	// Namespace is the system's, where archives are kept.
	Namespace string

	// Now is the clock.
	Now func() time.Time

	// PageSize is how many objects a list asks for at once. Default: 500.
	PageSize int64

	// Metrics may be nil.
	Metrics *Metrics
	Logger  *slog.Logger
}

// Archive keeps and restores namespaces. It holds no state, and is safe for concurrent use.
type Archive struct{ options Options }

// New returns an Archive.
func New(options Options) *Archive {
	if options.PageSize <= 0 {
		options.PageSize = 500
	}
	return &Archive{options}
}

func (a *Archive) configMaps() clientcorev1.ConfigMapInterface {
	return a.options.Core.ConfigMaps(a.options.Namespace)
}

func (a *Archive) secrets() clientcorev1.SecretInterface {
	return a.options.Core.Secrets(a.options.Namespace)
}

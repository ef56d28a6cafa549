package reaper

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// Preview compares what the reaper does by two policies, as things are now. It reads with the rights of its caller, and
// writes nothing.
type Preview struct {
	Config *rest.Config

	// System is the namespace of the system.
	System string

	// Today is the policy in force, nil where the system is not installed. Then is the other one.
	Today, Then *v1alpha1.LifecyclePolicy

	// Namespace is the only one to look at; empty for all. Of one alone, what a pass may delete at most is not
	// considered: that is a share of what there is in all.
	Namespace string

	// Now is when it is.
	Now time.Time
}

// Changes are what a Preview has found.
type Changes struct {
	// Changes lists the objects to which something else happens. It is never nil.
	Changes []*Change `json:"changes"`

	// NotRead names what was not compared, since the caller has no right to read what decides it, and says which.
	NotRead []string `json:"notRead,omitempty"`
}

// Run compares. What the caller may not read is said in the answer; an error is about everything.
func (p *Preview) Run(ctx context.Context) (*Changes, error) {
	differing := p.differing()
	changes := &Changes{Changes: []*Change{}}
	if len(differing) == 0 {
		return changes, nil
	}
	client, err := readingClient(p.Config)
	if err != nil {
		return nil, fmt.Errorf("reaper: %w", err)
	}
	r := &previewing{Preview: p, client: client, changes: changes}
	r.inventory = newInventory(func(namespace string) bool {
		return remembers(p.Then, namespace) || p.Today != nil && remembers(p.Today, namespace)
	}, func() time.Time { return p.Now })
	unread, err := r.fill(ctx, func(k *kind) bool {
		for _, part := range differing {
			if part.needs(k) {
				return true
			}
		}
		return false
	})
	if err != nil {
		return nil, err
	}
	for _, part := range differing {
		if err := unread.of(part); err != nil {
			changes.NotRead = append(changes.NotRead, fmt.Sprintf("%s: %v", part.name, err))
			continue
		}
		found, err := part.compare(r, ctx)
		if err != nil {
			return nil, err
		}
		changes.Changes = append(changes.Changes, changed(found)...)
	}
	return changes, nil
}

// differing lists the parts for which the policies differ.
func (p *Preview) differing() []previewPart {
	var parts []previewPart
	for _, part := range previewParts() {
		if p.Today == nil || !reflect.DeepEqual(part.settings(p.Today), part.settings(p.Then)) {
			parts = append(parts, part)
		}
	}
	return parts
}

// readingClient returns a client that can only read.
func readingClient(config *rest.Config) (kubernetes.Interface, error) {
	config = rest.CopyConfig(config)
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	config.Timeout = RequestTimeout
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return readingTransport{next} })
	return kubernetes.NewForConfig(config)
}

// readingTransport sends no request by which something could change, whatever code makes it.
type readingTransport struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t readingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, fmt.Errorf("%s %s: a preview only reads", r.Method, r.URL.Path)
	}
	return t.next.RoundTrip(r)
}

// unreadKinds says why kinds of objects may not be read, by their names.
type unreadKinds map[string]error

// of returns why a part lacks something that it needs; nil if it lacks nothing.
func (u unreadKinds) of(part previewPart) error {
	for _, k := range kinds() {
		if err := u[k.name]; err != nil && part.needs(&k) {
			return err
		}
	}
	return nil
}

// previewing is a Preview under way.
type previewing struct {
	*Preview
	client    kubernetes.Interface
	inventory *inventory
	changes   *Changes
}

// fill reads the kinds that are needed.
func (r *previewing) fill(ctx context.Context, needed func(*kind) bool) (unreadKinds, error) {
	unread := unreadKinds{}
	for _, k := range kinds() {
		if !needed(&k) {
			continue
		}
		switch err := r.read(ctx, &k); {
		case apierrors.IsForbidden(err):
			unread[k.name] = err
		case err != nil:
			return nil, err
		}
	}
	return unread, nil
}

func (r *previewing) read(ctx context.Context, k *kind) error {
	if k.name == "Namespace" && r.Namespace != "" {
		n, err := r.client.CoreV1().Namespaces().Get(ctx, r.Namespace, metav1.GetOptions{})
		if err == nil {
			r.inventory.put(namespaceOf(n), true)
		}
		return err
	}
	return k.liveObjects(ctx, r.client, r.Namespace, func(o runtime.Object) error {
		known := recordOf(o)
		if known == nil {
			return fmt.Errorf("%T is no %s", o, k.name)
		}
		r.inventory.put(known, true)
		return nil
	})
}

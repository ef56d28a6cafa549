package reaper

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
)

// referencePage is how many objects of a kind are asked for at once. Custom objects may be large.
const referencePage = 100

// referenceReader reads what refers to leftovers, besides Pods, workloads and service accounts. It serves one pass:
// what is the same for every namespace is read once, when it is first needed. It is not safe for concurrent use.
type referenceReader struct {
	client kubernetes.Interface

	ready bool
	// kinds are those to look through in each namespace.
	kinds []referrer
	// names are what objects without a namespace mention; templates those that StorageClasses make names of.
	names     map[string]bool
	templates []string
	// err says why that is not all.
	err error
}

// read returns which of the wanted names are mentioned in a namespace, as things are now. What cannot be read is said
// in the answer.
func (r *referenceReader) read(ctx context.Context, namespace string, wanted map[string]bool) *mentions {
	if !r.ready {
		r.err, r.ready = errors.Join(r.discover(ctx), r.readCluster(ctx)), true
	}
	m := &mentions{names: map[string]bool{}, makers: makers{}}
	err := r.err
	if err == nil {
		err = r.readNamespace(ctx, namespace, wanted, m)
	}
	if err != nil {
		m.unknown = err.Error()
	}
	return m
}

// discover asks which kinds there are. A group that does not answer may have objects that refer to anything.
func (r *referenceReader) discover(ctx context.Context) error {
	served, err := discovery.ToServerResourcesInterfaceWithContext(r.client.Discovery()).ServerPreferredNamespacedResourcesWithContext(ctx)
	if failed, is := discovery.GroupDiscoveryFailedErrorGroups(err); is {
		err = nil
		for gv, cause := range failed {
			if !isReporting(gv.Group) {
				err = errors.Join(err, fmt.Errorf("kinds of %s cannot be told: %w", gv, cause))
			}
		}
	}
	if err != nil {
		return err
	}
	r.kinds, err = referrersOf(served)
	return err
}

func (r *referenceReader) readCluster(ctx context.Context) error {
	r.names = map[string]bool{}
	for i := range clusterReferrers {
		s := scanner{within: clusterReferrers[i].within, annotationsOnly: true, name: func(string) {}, text: func(text string) {
			if strings.Contains(text, "${") {
				r.templates = append(r.templates, text)
				return
			}
			for _, name := range namesIn(text) {
				r.names[name] = true
			}
		}}
		if err := clusterReferrers[i].scan(ctx, r.client, "", &s); err != nil {
			return err
		}
	}
	return nil
}

func (r *referenceReader) readNamespace(ctx context.Context, namespace string, wanted map[string]bool, m *mentions) error {
	for i := range r.kinds {
		k := &r.kinds[i]
		s := scanner{within: k.within, annotationsOnly: !k.custom, text: func(text string) {
			for _, name := range namesIn(text) {
				if wanted[name] {
					m.names[name] = true
				}
			}
		}, name: func(name string) {
			if k.custom {
				m.makers[name] = true
			}
			m.granted = m.granted || k.groupResource() == referenceGrants
		}}
		if err := k.scan(ctx, r.client, namespace, &s); err != nil {
			return err
		}
	}
	claims, err := r.claims(ctx, namespace)
	if err != nil {
		return err
	}
	for name := range wanted {
		if r.names[name] || mentionedByTemplate(name, r.templates, claims) {
			m.names[name] = true
		}
	}
	return nil
}

// claims lists the claims of a namespace, where a StorageClass makes names of them.
func (r *referenceReader) claims(ctx context.Context, namespace string) ([]*corev1.PersistentVolumeClaim, error) {
	if len(r.templates) == 0 {
		return nil, nil
	}
	var claims []*corev1.PersistentVolumeClaim
	for _, k := range kinds() {
		if k.name != "PersistentVolumeClaim" {
			continue
		}
		err := k.liveObjects(ctx, r.client, namespace, func(o runtime.Object) error {
			claims = append(claims, o.(*corev1.PersistentVolumeClaim))
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return claims, nil
}

// scan reads all objects of the kind, in one namespace unless that is empty. A kind that the API server does not have
// has none.
func (k *referrer) scan(ctx context.Context, client kubernetes.Interface, namespace string, s *scanner) error {
	accept := "application/json"
	if k.metadataOnly {
		accept = acceptMetadata
	}
	for next := ""; ; {
		request := client.CoreV1().RESTClient().Get().AbsPath(k.path(namespace)...).SetHeader("Accept", accept).
			Param("limit", strconv.Itoa(referencePage))
		if next != "" {
			request = request.Param("continue", next)
		}
		body, err := request.Stream(ctx)
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list %s: %w", k.groupResource(), err)
		}
		page, err := s.list(body)
		if err = errors.Join(err, body.Close()); err != nil {
			return fmt.Errorf("list %s: %w", k.groupResource(), err)
		}
		if next = page.Continue; next == "" {
			return nil
		}
	}
}

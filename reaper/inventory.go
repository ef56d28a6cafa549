package reaper

import (
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// place is what is remembered of one namespace.
type place struct {
	namespace *namespace
	pods      map[string]*pod
	workloads map[string]*workload // by kind/name
	claims    map[string]*claim
	services  map[string]*service
	scalers   map[string]*scaler

	// podChanged is when a Pod there last changed while somebody looked.
	podChanged time.Time
}

// inventory is what the cluster holds, as far as the reaper has to know: all in the namespaces of agents, and nothing of others. It
// is kept by watches. What is decided by it is confirmed by a live read before anything is deleted.
type inventory struct {
	// covers says of which namespaces the content is remembered.
	covers func(namespace string) bool
	now    func() time.Time

	// notify, if set, is called for every change, with the lock held: before is nil for what is new, after for what is gone. first
	// says that the object was there before anybody looked.
	notify func(before, after record, first bool)

	mu     sync.Mutex
	places map[string]*place
}

func newInventory(covers func(string) bool, now func() time.Time) *inventory {
	return &inventory{covers: covers, now: now, places: map[string]*place{}}
}

// put remembers an object.
func (i *inventory) put(r record, first bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.store(r, first)
}

func (i *inventory) store(r record, first bool) {
	name := placeOf(r)
	if !i.covers(name) {
		return
	}
	p := i.places[name]
	if p == nil {
		p = &place{}
		i.places[name] = p
	}
	before := p.swap(r)
	if after, is := r.(*pod); is && !first {
		if was, _ := before.(*pod); was == nil || was.digest != after.digest {
			p.podChanged = i.now()
		}
	}
	if i.notify == nil {
		return
	}
	if before != nil && before.id().uid != r.id().uid { // made anew while nobody looked
		i.notify(before, nil, first)
		before = nil
	}
	i.notify(before, r, first)
}

// drop forgets an object.
func (i *inventory) drop(r record) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.remove(r)
}

func (i *inventory) remove(r record) {
	name := placeOf(r)
	p := i.places[name]
	if p == nil {
		return
	}
	before := p.take(r)
	if before == nil {
		return
	}
	if _, is := before.(*pod); is {
		p.podChanged = i.now()
	}
	if p.empty() {
		delete(i.places, name)
	}
	if i.notify != nil {
		i.notify(before, nil, false)
	}
}

// replace makes a list all there is of its kind. sample tells the kind.
func (i *inventory) replace(records []record, same func(record) bool, first bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	listed := map[string]bool{}
	for _, r := range records {
		listed[keyOf(r)] = true
	}
	var gone []record
	for _, p := range i.places {
		p.each(func(r record) {
			if same(r) && !listed[keyOf(r)] {
				gone = append(gone, r)
			}
		})
	}
	for _, r := range gone {
		i.remove(r)
	}
	for _, r := range records {
		i.store(r, first)
	}
}

// facts returns what is known of a namespace; nil if it is not known at all.
func (i *inventory) facts(name string) *facts {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.places[name].facts()
}

func (p *place) facts() *facts {
	if p == nil || p.namespace == nil {
		return nil
	}
	f := &facts{namespace: p.namespace, podChanged: p.podChanged}
	for _, pod := range p.pods {
		f.pods = append(f.pods, pod)
	}
	for _, w := range p.workloads {
		f.workloads = append(f.workloads, w)
	}
	for _, c := range p.claims {
		f.claims = append(f.claims, c)
	}
	for _, s := range p.services {
		f.services = append(f.services, s)
	}
	for _, s := range p.scalers {
		f.scalers = append(f.scalers, s)
	}
	return f
}

// names lists the namespaces that are known, in order.
func (i *inventory) names() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	names := make([]string, 0, len(i.places))
	for name, p := range i.places {
		if p.namespace != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// look calls f with what is known of a namespace, with the lock held.
func (i *inventory) look(name string, f func(*place)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if p := i.places[name]; p != nil {
		f(p)
	}
}

// each calls f with everything in every namespace, with the lock held.
func (i *inventory) each(f func(*place)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, p := range i.places {
		f(p)
	}
}

// deploymentUID is the UID of a Deployment, or "" if there is none. The lock is held.
func (i *inventory) deploymentUID(namespace, name string) types.UID {
	p := i.places[namespace]
	if p == nil || p.workloads["Deployment/"+name] == nil {
		return ""
	}
	return p.workloads["Deployment/"+name].uid
}

// written updates what is known of a namespace after a write, so that the next pass does not write again what the watch has not told
// yet.
func (i *inventory) written(n *namespace) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if p := i.places[n.name]; p != nil && p.namespace != nil && p.namespace.uid == n.uid {
		p.namespace = n
	}
}

// placeOf is the namespace whose content an object is: a Namespace is its own.
func placeOf(r record) string {
	if n, is := r.(*namespace); is {
		return n.name
	}
	return r.id().namespace
}

func keyOf(r record) string {
	kind := ""
	switch r := r.(type) {
	case *namespace:
		kind = "namespace"
	case *pod:
		kind = "pod"
	case *claim:
		kind = "claim"
	case *service:
		kind = "service"
	case *scaler:
		kind = "scaler"
	case *workload:
		kind = r.kind
	}
	return kind + "/" + placeOf(r) + "/" + r.id().name
}

func workloadKey(w *workload) string { return w.kind + "/" + w.name }

// swap puts a record in, and returns the one before.
func (p *place) swap(r record) record {
	switch r := r.(type) {
	case *namespace:
		before := p.namespace
		p.namespace = r
		return orNil(before)
	case *pod:
		return orNil(swapIn(&p.pods, r.name, r))
	case *workload:
		return orNil(swapIn(&p.workloads, workloadKey(r), r))
	case *claim:
		return orNil(swapIn(&p.claims, r.name, r))
	case *service:
		return orNil(swapIn(&p.services, r.name, r))
	case *scaler:
		return orNil(swapIn(&p.scalers, r.name, r))
	}
	return nil
}

// take takes the record of that kind and name out.
func (p *place) take(r record) record {
	switch r := r.(type) {
	case *namespace:
		before := p.namespace
		p.namespace = nil
		return orNil(before)
	case *pod:
		return orNil(takeOut(p.pods, r.name))
	case *workload:
		return orNil(takeOut(p.workloads, workloadKey(r)))
	case *claim:
		return orNil(takeOut(p.claims, r.name))
	case *service:
		return orNil(takeOut(p.services, r.name))
	case *scaler:
		return orNil(takeOut(p.scalers, r.name))
	}
	return nil
}

func (p *place) each(f func(record)) {
	if p.namespace != nil {
		f(p.namespace)
	}
	for _, r := range p.pods {
		f(r)
	}
	for _, r := range p.workloads {
		f(r)
	}
	for _, r := range p.claims {
		f(r)
	}
	for _, r := range p.services {
		f(r)
	}
	for _, r := range p.scalers {
		f(r)
	}
}

func (p *place) empty() bool {
	return p.namespace == nil && len(p.pods)+len(p.workloads)+len(p.claims)+len(p.services)+len(p.scalers) == 0
}

func swapIn[T any](m *map[string]*T, key string, value *T) *T {
	if *m == nil {
		*m = map[string]*T{}
	}
	before := (*m)[key]
	(*m)[key] = value
	return before
}

func takeOut[T any](m map[string]*T, key string) *T {
	before := m[key]
	delete(m, key)
	return before
}

// orNil makes a nil pointer a nil record.
func orNil[T any, P interface {
	*T
	record
}](r P) record {
	if r == nil {
		return nil
	}
	return r
}

package gateway

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// confirmEvery is for how long a Pod is taken to have its address still, without another look.
	confirmEvery = 10 * time.Second

	// confirmTimeout bounds the look.
	confirmTimeout = 5 * time.Second
)

// confirm returns nil if the Pod still is who answers at its address. The address of a Pod that has gone is given to another one, and
// a watch may be late: what is for one user must not reach another. So the API server is asked, now and then. Where it does
// not answer, a Pod that speaks is enough: its stream of events would have ended with it.
func (g *Gateway) confirm(ctx context.Context, pod *corev1.Pod) error {
	at := placed{pod.UID, pod.Status.PodIP}
	if g.confirmed.lately(at) {
		return nil
	}
	_, err, _ := g.confirmed.flights.Do(string(at.pod)+" "+at.ip, func() (any, error) {
		// Others wait for the same answer: it must not end with whoever asked first.
		work, cancel := context.WithTimeout(context.WithoutCancel(ctx), confirmTimeout)
		defer cancel()
		now, err := found(g.options.Client.CoreV1().Pods(pod.Namespace).Get(work, pod.Name, metav1.GetOptions{}))
		switch {
		case err != nil && g.fleet.hears(pod):
			return nil, nil // and asked again next time
		case err != nil:
			return nil, &awayError{"whether Pod " + pod.Name + " still has its address is not known", err}
		case now == nil || now.UID != pod.UID || now.Status.PodIP != pod.Status.PodIP || !serving(now):
			return nil, fmt.Errorf("%w: Pod %s is not there or not ready any more", errLeft, pod.Name)
		}
		g.confirmed.note(at)
		return nil, nil
	})
	return err
}

// placed is a Pod at an address.
type placed struct {
	pod types.UID
	ip  string
}

// confirmations remembers which Pods were at their addresses lately.
type confirmations struct {
	now     func() time.Time
	flights singleflight.Group

	mu sync.Mutex
	at map[placed]time.Time
}

func newConfirmations(now func() time.Time) *confirmations {
	return &confirmations{now: now, at: map[placed]time.Time{}}
}

func (c *confirmations) lately(pod placed) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, has := c.at[pod]
	return has && c.now().Sub(at) < confirmEvery
}

func (c *confirmations) note(pod placed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.at) >= maxBuckets {
		clear(c.at)
	}
	c.at[pod] = c.now()
}

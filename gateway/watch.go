package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

const (
	// silence is after how long without a word, heartbeats of 30 s included, a stream is dead.
	silence = 90 * time.Second

	// An agent whose manager does not answer is asked again after a while, and ever more rarely: it may have none.
	askLeast, askMost = time.Second, 2 * time.Minute

	// maxLine bounds what an agent can make the gateway remember, in bytes.
	maxLine = 4096

	// steady is how long a stream must have stood for the next one to be tried soon. An agent whose streams end at once is
	// asked ever more rarely, whatever it said in them.
	steady = 10 * time.Second
)

// watcher listens to what every agent that is ready says of itself. A connection costs some 25 KiB, most of it for the agent's
// events to be announced while nobody looks.
type watcher struct {
	gateway *Gateway
	client  *http.Client

	// places bounds how many agents are listened to at once.
	places chan struct{}

	mu      sync.Mutex
	ctx     context.Context
	running map[types.UID]listening

	// signing ends when there are other keys to sign by.
	signing    context.Context
	endSigning context.CancelFunc

	wait sync.WaitGroup
}

// listening is a Pod that is listened to: at which address, and what ends it.
type listening struct {
	ip   string
	stop context.CancelFunc
}

func newWatcher(g *Gateway) *watcher {
	w := &watcher{
		gateway: g, running: map[types.UID]listening{}, places: make(chan struct{}, g.options.Limits.Listened),
		client: transport{headerTimeout: managerTimeout, small: true}.client(0),
	}
	w.signing, w.endSigning = context.WithCancel(context.Background())
	return w
}

// errSignAnew ends a stream that is signed by keys of before.
var errSignAnew = errors.New("there are other keys to sign by")

// SignStreamsAnew ends the streams of events and opens them again, signed by the keys of today. An agent takes a signed stream
// for the proof that its gateway signs: one of a key that is used no more would have it refuse what is signed by another.
func (g *Gateway) SignStreamsAnew() {
	w := g.watcher
	w.mu.Lock()
	defer w.mu.Unlock()
	w.endSigning()
	w.signing, w.endSigning = context.WithCancel(context.Background())
}

func (w *watcher) untilSignedAnew() context.Context {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.signing
}

// run lets streams live until ctx ends.
func (w *watcher) run(ctx context.Context) {
	w.mu.Lock()
	w.ctx = ctx
	w.mu.Unlock()
	for _, o := range w.gateway.fleet.pods.List() {
		w.follow(o.(*corev1.Pod), false)
	}
	<-ctx.Done()
	w.wait.Wait()
}

// follow begins or ends a stream, as the Pod is ready or not.
func (w *watcher) follow(pod *corev1.Pod, gone bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	running, runs := w.running[pod.UID]
	listen := !gone && serving(pod)
	if gone {
		w.gateway.fleet.forget(pod)
		w.gateway.nonces.forget(pod.UID)
	}
	if w.ctx == nil || w.ctx.Err() != nil {
		return
	}
	// A Pod whose sandbox is made anew has another address, and the old one is given to another Pod.
	if runs && (!listen || running.ip != pod.Status.PodIP) {
		running.stop()
		delete(w.running, pod.UID)
		runs = false
	}
	if listen && !runs {
		ctx, cancel := context.WithCancel(w.ctx)
		w.running[pod.UID] = listening{pod.Status.PodIP, cancel}
		w.wait.Go(func() { w.listen(ctx, pod) })
	}
}

// stream is one watcher's ear for one Pod.
type stream struct {
	*watcher
	pod *corev1.Pod

	// announce keeps an agent from filling the stream of events by changing its mind.
	announce *rate.Limiter

	// budget keeps it from wearing the gateway out by talking.
	budget *budget
}

func (w *watcher) listen(ctx context.Context, pod *corev1.Pod) {
	defer func() {
		if w.gateway.fleet.current(pod) == nil { // it may have said something when it had been forgotten already
			w.gateway.fleet.forget(pod)
		}
	}()
	release, ok := w.place(ctx)
	if !ok {
		return
	}
	defer release()
	now := w.gateway.options.Now
	s := &stream{w, pod, rate.NewLimiter(rate.Every(10*time.Second), 5), newBudget(now)}
	pause := askLeast
	for attempt := 0; ctx.Err() == nil; attempt++ {
		began := now()
		heard, err := s.read(ctx, attempt > 0)
		w.gateway.fleet.hush(pod, s)
		flooded := errors.Is(err, errFlood)
		if flooded {
			w.gateway.options.Metrics.limited.WithLabelValues(limitedEvents).Inc()
		}
		if heard && !flooded && now().Sub(began) >= steady {
			pause = askLeast
		}
		if ctx.Err() == nil {
			w.gateway.options.Logger.Debug("An agent says nothing of itself", "pod", pod.Name, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, askMost)
	}
}

// place waits for one of the places until ctx ends; release gives it back.
func (w *watcher) place(ctx context.Context) (release func(), ok bool) {
	if release, ok := take(w.places); ok {
		return release, true
	}
	w.gateway.options.Metrics.limited.WithLabelValues(limitedListened).Inc()
	select {
	case w.places <- struct{}{}:
		return func() { <-w.places }, true
	case <-ctx.Done():
		return nil, false
	}
}

// read reads events until the stream ends. heard says whether there was one. again says that there was a stream before: the address
// may have become another Pod's since it was read, and what that one says would be taken for this one's word.
func (s *stream) read(ctx context.Context, again bool) (heard bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.untilSignedAnew(), func() { cancel(errSignAnew) })()
	dead := time.AfterFunc(silence, func() { cancel(errors.New("it said nothing for a while")) })
	defer dead.Stop()
	options := &s.gateway.options
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+options.Address(s.pod, lifecycle.ManagerPort)+"/v1/events", nil)
	if err != nil {
		return false, err
	}
	request.Header.Set("Accept", "text/event-stream")
	response, err := s.gateway.send(s.client, request, s.pod, nil)
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return false, fmt.Errorf("answered with %s", response.Status)
	}
	if again {
		if err := s.gateway.confirm(ctx, s.pod); err != nil {
			return false, err
		}
	}
	options.Metrics.listening.Inc()
	defer options.Metrics.listening.Dec()
	var now saying
	err = readEvents(s.budget.reader(response.Body), func() { dead.Reset(silence) }, func(name, data string) error {
		if err := s.budget.event(); err != nil {
			return err
		}
		before := now
		if !now.hear(name, data) {
			return nil
		}
		heard = true
		s.gateway.fleet.say(s.pod, now, s)
		s.tell(before, now)
		return nil
	})
	return heard, err
}

// hear takes in one event, and returns false for what is not understood.
func (s *saying) hear(name, data string) bool {
	switch name {
	case "state":
		var e struct {
			State lifecycle.State `json:"state"`
			Since time.Time       `json:"since"`
		}
		if json.Unmarshal([]byte(data), &e) != nil {
			return false
		}
		switch e.State {
		case lifecycle.Running:
			*s = saying{state: e.State, since: e.Since}
		case lifecycle.Idle, lifecycle.Shutdown:
			s.state, s.since = e.State, e.Since
		default:
			return false
		}
		return true
	case "warning":
		var e struct {
			Deadline time.Time `json:"deadline"`
		}
		if json.Unmarshal([]byte(data), &e) != nil || e.Deadline.IsZero() {
			return false
		}
		s.deadline = e.Deadline
		return true
	}
	return false
}

// tell announces what is news.
func (s *stream) tell(before, now saying) {
	if s.gateway.options.Announcer == nil {
		return
	}
	for _, n := range s.gateway.notices(s.pod, before, now) {
		if s.announce.Allow() {
			s.gateway.options.Announcer.Announce(n)
		}
	}
}

// notices are what an agent says now and did not say before.
func (g *Gateway) notices(pod *corev1.Pod, before, now saying) []Notice {
	n := Notice{
		Namespace: pod.Namespace, Deployment: pod.Labels[lifecycle.LabelDeployment], Pod: pod.Name,
		UserType: lifecycle.UserType(pod.Labels[lifecycle.LabelUserType]),
	}
	d, err := g.fleet.deployments.Get(n.Deployment)
	if err != nil {
		return nil // it is going, and that is announced by others
	}
	n.UID = d.UID
	var news []Notice
	if now.state == lifecycle.Idle && (before.state != now.state || !before.since.Equal(now.since)) {
		idle := n
		idle.Type, idle.Since = NoticeIdle, now.since
		news = append(news, idle)
	}
	if !now.deadline.IsZero() && !before.deadline.Equal(now.deadline) {
		n.Type, n.Deadline = NoticeWarning, now.deadline
		news = append(news, n)
	}
	return news
}

// Notices returns how things stand: what would be announced if all agents said it anew.
func (g *Gateway) Notices() []Notice {
	var all []Notice
	for _, o := range g.fleet.pods.List() {
		pod := o.(*corev1.Pod)
		all = append(all, g.notices(pod, saying{}, g.fleet.saidBy(pod))...)
	}
	return all
}

// readEvents reads server-sent events until the stream ends or event returns an error; alive is called for every line. A line that is too
// long ends it.
func readEvents(r io.Reader, alive func(), event func(name, data string) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 256), maxLine)
	var name, data string
	for lines.Scan() {
		alive()
		line := lines.Text()
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			if data != "" {
				if err := event(name, data); err != nil {
					return err
				}
			}
			name, data = "", ""
		case field == "event":
			name = value
		case field == "data" && data == "":
			data = value
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.EOF
}

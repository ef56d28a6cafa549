package sidecar

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inBothModes runs a test for kernels that tell how a process ended, and for others.
func inBothModes(t *testing.T, test func(t *testing.T, info bool)) {
	for _, info := range []bool{true, false} {
		t.Run(map[bool]string{true: "pidfd", false: "file"}[info], func(t *testing.T) { test(t, info) })
	}
}

const wantRequest = `DELETE /apis/apps/v1/namespaces/agents/deployments/alice Bearer first ` +
	`{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Foreground"}`

func TestIdleExit(t *testing.T) {
	inBothModes(t, func(t *testing.T, info bool) {
		p, api := newPod(t), newAPIServer(t, 200)
		agent := p.start("exit 42")
		r := runIn(t, p, api, info, nil)
		r.expectLog(watching(agent))
		p.leave("42\n")
		p.stop(agent)
		r.expectLog("Deletion accepted")
		if got := api.requests(); len(got) != 1 || got[0] != wantRequest {
			t.Errorf("asked %q, want once %q", got, wantRequest)
		}
		r.stop()
		if err := r.expectEnd(); err != nil {
			t.Error(err)
		}
	})
}

// Nothing but 42 leads to a request.
func TestOtherExits(t *testing.T) {
	for name, tc := range map[string]struct{ script, word string }{
		"0": {"exit 0", "0"}, "1": {"exit 1", "1"}, "killed": {"kill -9 $$", "137"}, "no word": {"exit 3", ""},
		"signal 42": {"kill -42 $$", "170"}, "41": {"exit 41", "41"}, "garbage": {"exit 1", "forty-two"}, "long": {"exit 1", strings.Repeat("42", 20)},
	} {
		t.Run(name, func(t *testing.T) {
			inBothModes(t, func(t *testing.T, info bool) {
				p, api := newPod(t), newAPIServer(t, 200)
				agent := p.start(tc.script)
				r := runIn(t, p, api, info, nil)
				r.expectLog(watching(agent))
				if tc.word != "" {
					p.leave(tc.word)
				}
				p.stop(agent)
				r.expectLog(`"idle":false`)
				if got := api.requests(); len(got) > 0 {
					t.Errorf("asked %q", got)
				}
			})
		})
	}
}

// A forged word is no exit: where the kernel tells, it is not even looked at.
func TestForgedWord(t *testing.T) {
	p, api := newPod(t), newAPIServer(t, 200)
	agent := p.start("exit 1")
	r := runIn(t, p, api, true, nil)
	r.expectLog(watching(agent))
	p.leave("42")
	p.stop(agent)
	r.expectLog(`"exitCode":1`)
	if got := api.requests(); len(got) > 0 {
		t.Errorf("asked %q", got)
	}
}

// The agent that comes after a crash is watched like the first.
func TestNextAgent(t *testing.T) {
	inBothModes(t, func(t *testing.T, info bool) {
		p, api := newPod(t), newAPIServer(t, 200)
		first := p.start("exit 1")
		r := runIn(t, p, api, info, nil)
		r.expectLog(watching(first))
		p.stop(first)
		r.expectLog("Agent ended")
		second := p.start("exit 42")
		r.expectLog(watching(second))
		p.leave("42")
		p.stop(second)
		r.expectLog("Deletion accepted")
	})
}

// That something else runs, an exec session or another container, does not keep the next agent from being noticed.
func TestNextAgentBesideAnother(t *testing.T) {
	t.Parallel()
	inBothModes(t, func(t *testing.T, info bool) {
		t.Parallel()
		p, api := newPod(t), newAPIServer(t, 200)
		p.start("exit 0")
		first := p.start("exit 1")
		r := runIn(t, p, api, info, nil)
		r.expectLog(watching(first))
		p.stop(first)
		r.expectLog("Agent ended")
		second := p.start("exit 42")
		r.expectLog(watching(second))
		p.leave("42")
		p.stop(second)
		r.expectLog("Deletion accepted")
	})
}

// A refusal is about the exit that was asked about, not about one that came meanwhile.
func TestExitDuringRefusal(t *testing.T) {
	p, api := newPod(t), newAPIServer(t, judgedForbidden, 200)
	agent := p.start("exit 42")
	p.leave("42")
	release := api.hold(t)
	r := runIn(t, p, api, true, nil)
	r.expectLog(watching(agent))
	<-api.held
	p.stop(agent)
	r.expectLog("Agent ended")
	release()
	r.expectLog("Deletion accepted")
}

// watching is what the sidecar says of a process that it has found.
func watching(a *agent) string { return fmt.Sprintf(`"msg":"Watching","pid":%d}`, a.Process.Pid) }

// A sidecar that was itself started again asks for what it has missed.
func TestLooksBack(t *testing.T) {
	p, api := newPod(t), newAPIServer(t, judgedForbidden)
	p.leave("42")
	r := runIn(t, p, api, true, nil)
	r.expectLog("Deletion refused")
	if got := len(api.requests()); got != 1 {
		t.Errorf("asked %d times", got)
	}
}

func TestAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		codes []int
		end   string
	}{
		"accepted":                       {[]int{202}, "accepted"},
		"gone already":                   {[]int{404}, "accepted"},
		"not yet, then accepted":         {[]int{409, 409, 200}, "accepted"},
		"breaker open, then accepted":    {[]int{429, 200}, "accepted"},
		"webhook away, then accepted":    {[]int{500, 503, 200}, "accepted"},
		"token renewed":                  {[]int{401, 200}, "accepted"},
		"API server knows no rights yet": {[]int{403, 403, 200}, "accepted"},
		"refused":                        {[]int{judgedForbidden}, "refused"},
		"refused after it was not there": {[]int{409, judgedForbidden}, "refused"},
		"not understood":                 {[]int{422}, "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, api := newPod(t), newAPIServer(t, tc.codes...)
			p.leave("42")
			r := runIn(t, p, api, true, func(o *Options) { o.Once = true })
			err := r.expectEnd()
			if (err == nil) != (tc.end == "accepted") {
				t.Errorf("ended with %v, want %s", err, tc.end)
			}
			if err != nil && !strings.Contains(err.Error(), fmt.Sprintf("answer %d", max(tc.codes[len(tc.codes)-1], -tc.codes[len(tc.codes)-1]))) {
				t.Errorf("%q does not hold the server's words", err)
			}
			if got := len(api.requests()); got != len(tc.codes) {
				t.Errorf("asked %d times, want %d", got, len(tc.codes))
			}
		})
	}
}

// An exit that is never proven is given up, so that a forged one does not keep the server busy; what merely is away is not.
func TestProofPatience(t *testing.T) {
	short := func(o *Options) { o.ProofPatience = 200 * time.Millisecond }
	p, api := newPod(t), newAPIServer(t, 409)
	p.leave("42")
	runIn(t, p, api, true, short).expectLog("the exit was not proven in 200ms: answer 409")

	p, api = newPod(t), newAPIServer(t, 503, 503, 503, 503, 200)
	p.leave("42")
	runIn(t, p, api, true, short).expectLog("Deletion accepted")

	// What was said before it was away does not count: the kubelet was away too.
	p, api = newPod(t), newAPIServer(t, 409, 503, 503, 503, 409, 200)
	p.leave("42")
	runIn(t, p, api, true, short).expectLog("Deletion accepted")
}

// Where the agent is not reaped in time the kernel does not tell how it ended, and the word it left does.
func TestUnreaped(t *testing.T) {
	for word, want := range map[string]string{"42": "Deletion accepted", "1": `"how":"file","idle":false`} {
		t.Run(word, func(t *testing.T) {
			t.Parallel()
			p, api := newPod(t), newAPIServer(t, 200)
			agent := p.start("exit " + word)
			r := runIn(t, p, api, true, nil)
			r.expectLog(watching(agent))
			p.leave(word)
			agent.end.Close()
			r.expectLog(want)
		})
	}
}

// Token and CA are read again for each request.
func TestRotatedToken(t *testing.T) {
	p, api := newPod(t), newAPIServer(t, 401)
	p.leave("42")
	r := runIn(t, p, api, true, nil)
	r.expectLog(`"code":401`)
	api.setToken(t, "second")
	deadline := time.Now().Add(20 * time.Second)
	for {
		if got := api.requests(); strings.Contains(got[len(got)-1], "Bearer second") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the new token was never used")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// An API server that is away is asked until it is back.
func TestServerAway(t *testing.T) {
	p, api := newPod(t), newAPIServer(t, 200)
	back := api.away(t)
	p.leave("42")
	r := runIn(t, p, api, true, nil)
	r.expectLog("connection refused")
	r.stop() // it does not wait for a server that may never come
	if err := r.expectEnd(); err != nil {
		t.Fatal(err)
	}

	r = runIn(t, p, api, true, nil)
	r.expectLog("connection refused")
	back()
	r.expectLog("Deletion accepted")
}

// After SIGTERM nothing is begun, and the sidecar goes as soon as the agent has gone.
func TestStop(t *testing.T) {
	t.Run("without an agent", func(t *testing.T) {
		p, api := newPod(t), newAPIServer(t, 200)
		r := runIn(t, p, api, true, nil)
		r.stop()
		if err := r.expectEnd(); err != nil {
			t.Error(err)
		}
	})
	t.Run("with an agent", func(t *testing.T) {
		p, api := newPod(t), newAPIServer(t, 200)
		agent := p.start("exit 42")
		r := runIn(t, p, api, true, nil)
		r.expectLog(watching(agent))
		r.stop()
		r.expectLog("Stopping")
		select {
		case err := <-r.done:
			t.Fatalf("the sidecar left before its agent: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
		p.stop(agent)
		if err := r.expectEnd(); err != nil {
			t.Error(err)
		}
		if got := api.requests(); len(got) > 0 {
			t.Errorf("asked %q after it was told to stop", got)
		}
	})
	t.Run("between two requests", func(t *testing.T) {
		p, api := newPod(t), newAPIServer(t, 503)
		p.leave("42")
		r := runIn(t, p, api, true, nil)
		r.expectLog("Asking again")
		r.stop()
		if err := r.expectEnd(); err != nil {
			t.Error(err)
		}
	})
}

func TestIdleHint(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := dir + "/" + name
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	link := dir + "/link"
	if err := os.Symlink(write("real", "42"), link); err != nil {
		t.Fatal(err)
	}
	fifo := dir + "/fifo"
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		write("a", "42"): true, write("b", " 42\n"): true, write("c", "4 2"): false, write("d", "042"): false, write("e", ""): false,
		write("f", "42\n42\n"): false, write("g", strings.Repeat(" ", 15)+"42"): false, link: false, fifo: false, dir: false, dir + "/none": false,
	} {
		if got := idleHint(path); got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}

func TestBackoff(t *testing.T) {
	never, always := func() float64 { return 0 }, func() float64 { return 1 }
	for attempt, want := range map[int]time.Duration{1: 100, 2: 200, 3: 400, 6: 3200, 7: 5000, 1000: 5000} {
		low, high := backoff(attempt, reply{code: 500}, never), backoff(attempt, reply{code: 500}, always)
		want *= time.Millisecond
		if low != want/2 || high != want/2+want {
			t.Errorf("attempt %d: %s to %s, want %s to %s", attempt, low, high, want/2, want/2+want)
		}
	}
	if got := backoff(1, reply{code: 429, retryAfter: 30 * time.Second}, never); got != 30*time.Second {
		t.Errorf("asked to wait for 30 s: waits for %s at least", got)
	}
	if got := backoff(1, reply{code: 409, retryAfter: 30 * time.Second}, always); got > time.Second {
		t.Errorf("not yet: waits for %s", got)
	}
}

func TestAtLeast(t *testing.T) {
	for release, want := range map[string]bool{
		"6.15.0": true, "6.18.44-fc": true, "7.0": true, "6.14.9": false, "5.19": false, "": false, "linux": false,
	} {
		if got := atLeast(release, 6, 15); got != want {
			t.Errorf("%q: %v, want %v", release, got, want)
		}
	}
}

func TestPace(t *testing.T) {
	pauses := func(p pace, none bool, n int) (total time.Duration, last time.Duration) {
		for range n {
			last = p.after(none)
			total += last
		}
		return total, last
	}
	if _, last := pauses(pace{eager: eagerAtStart}, true, 100); last != lastRescan {
		t.Errorf("while no agent runs it looks every %s, want %s", last, lastRescan)
	}
	p := pace{eager: eagerAfterEnd}
	var looked time.Duration
	for !p.settled(false) {
		if next := p.after(false); next > lastRescan {
			t.Fatalf("%s after an end it waits for %s", looked, next)
		}
		looked += p.next
	}
	if looked < eagerAfterEnd {
		t.Errorf("after an end it looks often for %s, want %s", looked, eagerAfterEnd)
	}
	if first := p.after(false); first != firstSettled {
		t.Errorf("settled it waits for %s at first, want %s", first, firstSettled)
	}
	if _, last := pauses(p, false, 20); last != lastSettled {
		t.Errorf("settled it waits for %s at last, want %s", last, lastSettled)
	}
}

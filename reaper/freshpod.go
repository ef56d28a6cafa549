package reaper

import (
	"fmt"
	"time"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// settle is how long an agent stays dead before it gets a fresh Pod: until its sidecar has asked, and was refused.
const settle = 10 * time.Second

// fresh says what becomes of a Pod.
type fresh struct {
	// restart says that the Pod is to be deleted, so that another one starts; reason says why.
	restart bool
	reason  string

	// wait is when to look again; 0 if only a change of the Pod can alter anything.
	wait time.Duration
}

// decidePod says whether an agent that ended with 42 and is kept gets a fresh Pod: where its user type never shuts down, where
// somebody protects it, or where it ended so early that it was no idleness. Whatever else it is, its deletion is the sidecar's to ask
// for, and waiting for that is no reason to start it again.
func decidePod(a *agent, p *pod, now time.Time) fresh {
	if p.ended == nil || p.ended.restarted || p.deleting {
		return fresh{}
	}
	least := a.policy.SelfDelete.MinimumLifetime.Duration
	protection := lifecycle.Protection(a.protected, now)
	var reason string
	switch {
	case a.tier.Shutdown != v1alpha1.ShutdownWhenIdle:
		reason = fmt.Sprintf("agents of user type %s never shut down", a.userType)
	case protection != "":
		reason = "it is protected: " + protection
	case p.ended.lifetime < least:
		reason = fmt.Sprintf("it had run for %s, less than %s: that was no idleness", p.ended.lifetime, least)
	default:
		return fresh{}
	}
	if left := p.ended.finished.Add(settle).Sub(now); left > 0 {
		return fresh{wait: left}
	}
	return fresh{restart: true, reason: reason}
}

// Bounds of the pause between two fresh Pods of one agent: an image that ends with 42 at once must not make Pods for ever.
const (
	firstPause   = 10 * time.Second
	longestPause = 5 * time.Minute
	pauseReset   = 10 * time.Minute
)

// pauses remembers how often agents were started again, by the UID of their Deployment.
type pauses map[string]struct {
	last time.Time
	next time.Duration
}

// left is how long an agent has to wait yet.
func (p pauses) left(uid string, now time.Time) time.Duration {
	entry, ok := p[uid]
	if !ok || now.Sub(entry.last) >= pauseReset+entry.next {
		return 0
	}
	return max(0, entry.last.Add(entry.next).Sub(now))
}

// note remembers a fresh Pod, and forgets agents that have been quiet.
func (p pauses) note(uid string, now time.Time) {
	entry, ok := p[uid]
	if !ok || now.Sub(entry.last) >= pauseReset+entry.next {
		entry.next = 0
	}
	entry.last, entry.next = now, min(max(2*entry.next, firstPause), longestPause)
	p[uid] = entry
	for other, e := range p {
		if now.Sub(e.last) >= pauseReset+e.next {
			delete(p, other)
		}
	}
}

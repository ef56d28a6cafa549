package idle

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"

	"github.com/dexorder/agent-lifecycle/activity"
)

// Paths that the network may use.
const (
	pathActivity = "/v1/activity"
	pathEvents   = "/v1/events"
	pathSnooze   = "/v1/snooze"
	pathStatus   = "/v1/status"
)

// network serves the part of the API that is for the gateway.
type network struct {
	manager     *Manager
	gate        *gate
	subscribers *slots
	mux         *http.ServeMux
}

func newNetwork(m *Manager, verifier *activity.Verifier, log *slog.Logger) *network {
	n := &network{
		manager: m, gate: newGate(verifier, m.config.Timeout, m.now, log), subscribers: &slots{max: maxSubscribers}, mux: http.NewServeMux(),
	}
	n.mux.Handle("GET "+pathStatus, endpoint(func(*http.Request) (any, error) { return m.Status(), nil }))
	n.mux.Handle("POST "+pathActivity, n.authorized(m.postActivity))
	n.mux.Handle("POST "+pathSnooze, n.authorized(m.postSnooze))
	n.mux.HandleFunc("GET "+pathEvents, n.serveEvents)
	n.mux.HandleFunc("GET /metrics", n.serveMetrics)
	return n
}

// ServeHTTP implements http.Handler.
func (n *network) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !n.gate.admit(r) {
		n.refuse(w, errRate)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	n.mux.ServeHTTP(w, r)
}

// authorized is an endpoint for the agent's own Pod and the gateway.
func (n *network) authorized(e endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := n.gate.authorize(r); err != nil {
			n.refuse(w, err)
			return
		}
		e.ServeHTTP(w, r)
	})
}

// refuse answers with the nonce, so that a gateway that did not know it signs again.
func (n *network) refuse(w http.ResponseWriter, err error) {
	if errors.Is(err, errRate) {
		w.Header().Set("Connection", "close")
		w.Header().Set("Retry-After", "1")
	}
	if n.gate.verifier != nil {
		w.Header().Set(activity.NonceHeader, n.gate.verifier.Nonce())
	}
	writeJSON(w, codeOf(err), map[string]string{"error": err.Error()})
}

// serveEvents streams events. Everybody may listen; the gateway's replicas always can.
func (n *network) serveEvents(w http.ResponseWriter, r *http.Request) {
	signed, err := n.gate.authenticate(r)
	switch {
	case errors.Is(err, activity.ErrNonce):
		n.refuse(w, fmt.Errorf("%w: %w", ErrUnauthorized, err))
		return
	case errors.Is(err, errRate):
		n.refuse(w, err)
		return
	}
	if signed {
		n.gate.contact(1)
		defer n.gate.contact(-1)
	}
	serveEvents(w, r, n.manager, n.subscribers, signed)
}

// serveMetrics adds to the manager's metrics those of the network.
func (n *network) serveMetrics(w http.ResponseWriter, r *http.Request) {
	n.manager.serveMetrics(w, r)
	unsigned := 0
	if n.gate.takesUnsigned() {
		unsigned = 1
	}
	for _, g := range []struct {
		name, help string
		value      int
	}{
		{"agent_lifecycle_agent_takes_unsigned_activity", "1 while activity from the network is taken from everybody.", unsigned},
		{"agent_lifecycle_agent_event_streams", "Streams of events to the network.", n.subscribers.len()},
	} {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s gauge\n%s %d\n", g.name, g.help, g.name, g.name, g.value)
	}
	const refused = "agent_lifecycle_agent_refused_requests_total"
	fmt.Fprintf(w, "# HELP %s Requests from the network that were refused, by reason.\n# TYPE %s counter\n", refused, refused)
	counts := n.gate.refusals()
	for _, reason := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(w, "%s{reason=%q} %d\n", refused, reason, counts[reason])
	}
}

package gateway

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// Metrics are what a Gateway counts.
type Metrics struct {
	requests  *prometheus.CounterVec
	creations *prometheus.CounterVec
	wakes     *prometheus.HistogramVec
	limited   *prometheus.CounterVec
	held      prometheus.GaugeFunc
	listening prometheus.Gauge
	streams   prometheus.Gauge

	// states counts the agents, nil before there is a Gateway.
	states func() map[lifecycle.State]int
	// waiting counts requests that wait for their agents.
	waiting func() int
}

// Outcomes of waiting for an agent.
const (
	outcomeReady  = "ready"
	outcomeLate   = "late"
	outcomeFailed = "failed"
	outcomeHungUp = "hung-up"
	agentsHelp    = "Agents by state, as far as there is a Deployment."
	agentsName    = "agent_lifecycle_gateway_agents"
	requestsName  = "agent_lifecycle_gateway_requests_total"
	creationsName = "agent_lifecycle_gateway_agents_created_total"
	wakesName     = "agent_lifecycle_gateway_wake_duration_seconds"
	limitedName   = "agent_lifecycle_gateway_limited_total"
	heldName      = "agent_lifecycle_gateway_held_requests"
	listeningName = "agent_lifecycle_gateway_agents_listened_to"
	streamsName   = "agent_lifecycle_gateway_event_streams"
)

// Limits that are counted where they are reached.
const (
	limitedRequest     = "requests"
	limitedHeld        = "held"
	limitedStreams     = "streams"
	limitedConnections = "connections" // of one user
	limitedConnected   = "connected"   // of all users
	limitedTokens      = "tokens"
	limitedStrangers   = "strangers"
	limitedEvents      = "events"
	limitedListened    = "listened"
)

// NewMetrics registers a Gateway's metrics.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: requestsName,
			Help: "Requests by route and status code."}, []string{"route", "code"}),
		creations: prometheus.NewCounterVec(prometheus.CounterOpts{Name: creationsName,
			Help: "Agents made or brought back, by user type."}, []string{"user_type"}),
		wakes: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: wakesName,
			Help:    "How long requests waited for agents that were not ready, by outcome: ready, late, failed or hung-up.",
			Buckets: []float64{.25, .5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 120}}, []string{"outcome"}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{Name: limitedName,
			Help: "What a limit has refused or ended: requests and connections of a user; connected, held and streams of all users; " +
				"unknown tokens; connections of strangers; events of agents that say too much; agents that wait to be listened to."},
			[]string{"limit"}),
		listening: prometheus.NewGauge(prometheus.GaugeOpts{Name: listeningName,
			Help: "Agents that say of themselves how they are."}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{Name: streamsName, Help: "Open streams of events."}),
	}
	m.held = prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: heldName, Help: "Requests that wait for their agents."}, func() float64 {
		if m.waiting == nil {
			return 0
		}
		return float64(m.waiting())
	})
	registry.MustRegister(m.requests, m.creations, m.wakes, m.limited, m.held, m.listening, m.streams, (*agentsCollector)(m))
	return m
}

func (m *Metrics) created(userType lifecycle.UserType) {
	m.creations.WithLabelValues(string(userType)).Inc()
}

func (m *Metrics) answered(route string, code int) {
	m.requests.WithLabelValues(route, strconv.Itoa(code)).Inc()
}

func (m *Metrics) waited(d time.Duration, outcome string) {
	m.wakes.WithLabelValues(outcome).Observe(d.Seconds())
}

// agentsCollector counts agents when it is asked.
type agentsCollector Metrics

var agentsDesc = prometheus.NewDesc(agentsName, agentsHelp, []string{"state"}, nil)

// Describe implements prometheus.Collector.
func (*agentsCollector) Describe(c chan<- *prometheus.Desc) { c <- agentsDesc }

// Collect implements prometheus.Collector.
func (m *agentsCollector) Collect(c chan<- prometheus.Metric) {
	if m.states == nil {
		return
	}
	counts := m.states()
	for _, state := range []lifecycle.State{lifecycle.Created, lifecycle.Running, lifecycle.Idle, lifecycle.Shutdown} {
		c <- prometheus.MustNewConstMetric(agentsDesc, prometheus.GaugeValue, float64(counts[state]), string(state))
	}
}

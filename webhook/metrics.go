package webhook

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/dexorder/agent-lifecycle/internal/connections"
)

// Metrics are the server's. Every label has few values: rules, kinds and verdicts are fixed, profiles are the policy
// file's. Nothing a user writes becomes a label.
type Metrics struct {
	decisions      *prometheus.CounterVec
	duration       *prometheus.HistogramVec
	inFlight       prometheus.Gauge
	faults         *prometheus.CounterVec
	refused        *prometheus.CounterVec
	reloads        *prometheus.CounterVec
	lastReload     prometheus.Gauge
	policyInfo     *prometheus.GaugeVec
	coverage       *prometheus.GaugeVec
	restartRuleSet prometheus.Gauge
	selfDeletes    *prometheus.CounterVec
	held           prometheus.Gauge
	heldFor        prometheus.Histogram
	eventsLost     prometheus.Counter

	callers           *prometheus.CounterVec
	connectionsClosed *prometheus.CounterVec
}

// NewMetrics registers the server's metrics, and those of the process, with a registry of its own.
func NewMetrics(registry prometheus.Registerer, version string) *Metrics {
	m := &Metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agent_lifecycle_admission_decisions_total",
			Help: "Decisions of /validate. deny, warn and audit count once for each rule that was violated; allow, uncovered " +
				"and fault have no rule. Dry runs are not counted. The API server may ask about one request more than once.",
		}, []string{"rule", "verdict", "kind", "profile"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "agent_lifecycle_admission_duration_seconds",
			Help:    "Time from a request's last byte to its answer, dry runs included.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5},
		}, []string{"path", "kind"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "agent_lifecycle_admission_in_flight_requests", Help: "Requests being answered now.",
		}),
		faults: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agent_lifecycle_admission_faults_total",
			Help: "Requests that could not be judged. They were refused, but on /stamp, where they were admitted without a stamp.",
		}, []string{"reason"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agent_lifecycle_admission_http_errors_total",
			Help: "Requests that were answered with an HTTP error, because they were no AdmissionReview.",
		}, []string{"code"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agent_lifecycle_policy_reloads_total", Help: "Times that a changed policy file was read, by result.",
		}, []string{"result"}),
		lastReload: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "agent_lifecycle_policy_last_success_timestamp_seconds", Help: "When the policy in force was read, in Unix seconds.",
		}),
		policyInfo: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "agent_lifecycle_policy_info", Help: "1 for the hash of the policy file in force.",
		}, []string{"hash"}),
		coverage: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "agent_lifecycle_coverage_mismatches",
			Help: "Differences between what the policy covers and what a webhook configuration registers; -1 while unknown.",
		}, []string{"configuration"}),
		restartRuleSet: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "agent_lifecycle_restart_rules_kept", Help: "1 if the API server is taken to keep container restart rules.",
		}),
	}
	m.selfDeletes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "agent_lifecycle_self_deletes_total",
		Help: "Agents that asked to be deleted. accepted: agents whose deletion has begun, each once, whichever servers were asked; the " +
			"others: answers, of which the same agent gets more than one, since it asks again after not-yet and breaker-open.",
	}, []string{"answer"})
	for _, answer := range []string{selfDeleteAccepted, selfDeleteNotYet, selfDeleteRefused, selfDeleteOpen} {
		m.selfDeletes.WithLabelValues(answer)
	}
	m.held = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "agent_lifecycle_self_deletes_held", Help: "Self-deletes that wait for the kubelet's word now.",
	})
	m.heldFor = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "agent_lifecycle_self_delete_hold_seconds",
		Help:    "How long self-deletes waited for the kubelet's word.",
		Buckets: []float64{.05, .1, .25, .5, .75, 1, 1.5, 2},
	})
	m.eventsLost = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "agent_lifecycle_self_delete_events_lost_total",
		Help: "Events of self-deletes that could not be written. The audit log has the proof.",
	})
	m.callers = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "agent_lifecycle_admission_callers_total",
		Help: "Requests by their client: proven by a certificate, unproven where none is asked for, refused without one.",
	}, []string{"caller"})
	for _, caller := range []string{callerProven, callerUnproven, callerRefused} {
		m.callers.WithLabelValues(caller)
	}
	m.connectionsClosed = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "agent_lifecycle_admission_connections_closed_total",
		Help: "Connections that were closed because there were too many: the oldest without an answered request, or idle ones.",
	}, []string{"reason"})
	for _, reason := range []string{connections.Unanswered, connections.Idle} {
		m.connectionsClosed.WithLabelValues(reason)
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "agent_lifecycle_build_info", Help: "1, with the program's version.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	// A counter that begins with its first fault never rises from zero, and an alert on its rise would miss that one.
	for _, reason := range faultReasons {
		m.faults.WithLabelValues(string(reason))
	}
	registry.MustRegister(m.decisions, m.duration, m.inFlight, m.faults, m.refused, m.reloads, m.lastReload, m.policyInfo,
		m.coverage, m.restartRuleSet, build, m.selfDeletes, m.held, m.heldFor, m.eventsLost,
		m.callers, m.connectionsClosed,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *Metrics) observe(path, kind string, took time.Duration) {
	m.duration.WithLabelValues(path, kind).Observe(took.Seconds())
}

func (m *Metrics) fault(reason faultReason) { m.faults.WithLabelValues(string(reason)).Inc() }

func (m *Metrics) decided(kind string, a *answer) {
	for _, c := range a.counts {
		m.decisions.WithLabelValues(c.rule, c.verdict, kind, a.profile).Inc()
	}
	if a.verdict != verdictDeny {
		m.decisions.WithLabelValues("", a.verdict, kind, a.profile).Inc()
	}
}

func (m *Metrics) restartRules(kept bool) {
	value := 0.0
	if kept {
		value = 1
	}
	m.restartRuleSet.Set(value)
}

func (m *Metrics) policyLoaded(hash string, now time.Time) {
	m.policyInfo.Reset()
	m.policyInfo.WithLabelValues(hash).Set(1)
	m.lastReload.Set(float64(now.Unix()))
	m.reloads.WithLabelValues("ok").Inc()
}

func (m *Metrics) policyRejected() { m.reloads.WithLabelValues("failed").Inc() }

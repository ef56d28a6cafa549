package reaper

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics of a Reaper. The label reaper is one of namespaces, agents, claims, leftovers and drift.
type Metrics struct {
	leading   prometheus.Gauge
	owned     *prometheus.CounterVec
	restarted prometheus.Counter

	passes     *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	candidates *prometheus.GaugeVec
	reaped     *prometheus.CounterVec
	kept       *prometheus.GaugeVec
	capHits    *prometheus.CounterVec
	lastGood   *prometheus.GaugeVec
	interval   prometheus.Gauge
	namespaces *prometheus.GaugeVec
	unhealthy  prometheus.Gauge
	stuck      prometheus.Gauge
	drifted    prometheus.Gauge
	failures   prometheus.Counter
}

// NewMetrics registers the metrics.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &Metrics{
		leading:   gauge("agent_lifecycle_reaper_leading", "1 in the replica that does the reaper's work."),
		owned:     counters("agent_lifecycle_reaper_owner_changes_total", "Times that a claim or Service of an agent had its owner references or user type set right.", "kind"),
		restarted: counter("agent_lifecycle_reaper_restarts_total", "Fresh Pods of agents that ended with 42 and were kept; one agent may get several."),

		passes: counters("agent_lifecycle_reaper_passes_total", "Passes by their result: good, failed, or capped, which deleted nothing since it would have deleted too much.",
			"reaper", "result"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "agent_lifecycle_reaper_pass_duration_seconds", Help: "How long passes took.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
		}, []string{"reaper"}),
		candidates: gauges("agent_lifecycle_reaper_candidates", "What the last pass decided to mark or delete.", "reaper"),
		reaped:     counters("agent_lifecycle_reaper_reaped_total", "What was deleted.", "reaper"),
		kept:       gauges("agent_lifecycle_reaper_kept", "What the last pass kept, by reason.", "reaper", "reason"),
		capHits:    counters("agent_lifecycle_reaper_cap_hits_total", "Passes that deleted nothing since they would have deleted too much.", "reaper"),
		lastGood:   gauges("agent_lifecycle_reaper_last_good_pass_timestamp_seconds", "When a pass last ended without an error.", "reaper"),
		interval:   gauge("agent_lifecycle_reaper_interval_seconds", "How long it is between two passes."),
		namespaces: gauges("agent_lifecycle_reaper_namespaces", "Namespaces of role agents by phase.", "phase"),
		unhealthy:  gauge("agent_lifecycle_reaper_unhealthy_namespaces", "Namespaces whose agent crashes, is not ready for too long, or is missing."),
		stuck:      gauge("agent_lifecycle_reaper_stuck_namespaces", "Namespaces that have been Terminating for too long."),
		drifted:    gauge("agent_lifecycle_reaper_drifted_namespaces", "Namespaces that differ from the template of their role."),
		failures:   counter("agent_lifecycle_reaper_failures_total", "Steps of taking a namespace apart that failed and are tried again."),
	}
	registry.MustRegister(m.leading, m.owned, m.restarted, m.passes, m.duration, m.candidates, m.reaped, m.kept, m.capHits, m.lastGood,
		m.interval, m.namespaces, m.unhealthy, m.stuck, m.drifted, m.failures)
	// A counter that begins with 1 has no increase for whoever watches it.
	for _, name := range reaperNames {
		m.reaped.WithLabelValues(name)
		m.capHits.WithLabelValues(name)
	}
	return m
}

// reaperNames are the values of the label reaper.
var reaperNames = []string{"namespaces", "agents", "claims", "leftovers", "drift"}

// resign forgets what only the replica that leads knows.
func (m *Metrics) resign() {
	m.leading.Set(0)
	m.unhealthy.Set(0)
	m.stuck.Set(0)
	m.drifted.Set(0)
	m.namespaces.Reset()
	m.candidates.Reset()
	m.kept.Reset()
	m.lastGood.Reset()
}

// off forgets what is only true of a reaper that works.
func (m *Metrics) off(reaper string) {
	m.lastGood.DeleteLabelValues(reaper)
	m.candidates.DeleteLabelValues(reaper)
	m.kept.DeletePartialMatch(prometheus.Labels{"reaper": reaper})
}

// passed counts a pass.
func (m *Metrics) passed(r *Result, before map[string]int, took time.Duration, now time.Time) {
	outcome := "good"
	switch {
	case r.Error != "":
		outcome = "failed"
	case r.CapExceeded:
		outcome = "capped"
	}
	m.passes.WithLabelValues(r.Reaper, outcome).Inc()
	m.duration.WithLabelValues(r.Reaper).Observe(took.Seconds())
	m.candidates.WithLabelValues(r.Reaper).Set(float64(r.Candidates))
	for _, reason := range r.keptBefore(before) {
		m.kept.DeleteLabelValues(r.Reaper, reason)
	}
	for reason, n := range r.Kept {
		m.kept.WithLabelValues(r.Reaper, reason).Set(float64(n))
	}
	if r.CapExceeded {
		m.capHits.WithLabelValues(r.Reaper).Inc()
	}
	if r.Error == "" {
		m.lastGood.WithLabelValues(r.Reaper).Set(float64(now.Unix()))
	}
}

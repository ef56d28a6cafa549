package reaper

import "github.com/prometheus/client_golang/prometheus"

// Metrics of a Reaper.
type Metrics struct {
	leading   prometheus.Gauge
	owned     *prometheus.CounterVec
	restarted prometheus.Counter
}

// NewMetrics registers the metrics.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		leading: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "agent_lifecycle_reaper_leading", Help: "1 in the replica that does the reaper's work.",
		}),
		owned: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agent_lifecycle_reaper_owner_changes_total",
			Help: "Claims and Services of agents whose owner references or user type were set right.",
		}, []string{"kind"}),
		restarted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "agent_lifecycle_reaper_restarts_total", Help: "Agents that ended with 42, were kept, and got a fresh Pod.",
		}),
	}
	registry.MustRegister(m.leading, m.owned, m.restarted)
	return m
}

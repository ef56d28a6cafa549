package breaker

import "github.com/prometheus/client_golang/prometheus"

// Metrics of a Breaker.
type Metrics struct {
	open  prometheus.Gauge
	takes *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "agent_lifecycle_breaker_open",
			Help: "Whether the circuit breaker of deletions is open, as this process saw it last.",
		}),
		takes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agent_lifecycle_breaker_takes_total",
			Help: "Questions whether one more agent may be deleted, by what the circuit breaker said. The same agent may ask more than once.",
		}, []string{"result"}),
	}
	for _, result := range []string{"granted", "refused", "failed"} {
		m.takes.WithLabelValues(result)
	}
	registry.MustRegister(m.open, m.takes)
	return m
}

func (m *Metrics) took(granted, refused int, open bool) {
	m.takes.WithLabelValues("granted").Add(float64(granted))
	m.takes.WithLabelValues("refused").Add(float64(refused))
	m.saw(open)
}

func (m *Metrics) failed(n int) { m.takes.WithLabelValues("failed").Add(float64(n)) }

func (m *Metrics) saw(open bool) {
	value := 0.0
	if open {
		value = 1
	}
	m.open.Set(value)
}

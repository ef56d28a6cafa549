package events

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Why an event was dropped.
const (
	droppedOverflow = "overflow"
	droppedInvalid  = "invalid"
	droppedTooLarge = "too_large"
	droppedRefused  = "refused"
	droppedShutdown = "shutdown"
)

// Metrics of a Publisher.
type Metrics struct {
	published *prometheus.CounterVec
	dropped   *prometheus.CounterVec
	buffered  prometheus.Gauge
	connected prometheus.Gauge
	duration  prometheus.Histogram
	rebuilds  prometheus.Counter
	keyed     prometheus.Gauge
}

// NewMetrics registers the metrics.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		published: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agent_lifecycle_events_published_total",
			Help: "Events that the stream has acknowledged, by type.",
		}, []string{"type"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agent_lifecycle_events_dropped_total",
			Help: "Events that are lost, by reason.",
		}, []string{"reason"}),
		buffered: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "agent_lifecycle_events_buffered",
			Help: "Events that wait to be published.",
		}),
		connected: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "agent_lifecycle_events_connected",
			Help: "Whether there is a connection to NATS.",
		}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "agent_lifecycle_events_publish_duration_seconds",
			Help:    "Time from sending an event to its acknowledgement.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}),
		rebuilds: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "agent_lifecycle_events_rebuilds_total",
			Help: "How often the state was published anew because events had been dropped.",
		}),
		keyed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "agent_lifecycle_events_id_key",
			Help: "Whether event ids are made with a key, so that they cannot be guessed.",
		}),
	}
	for _, t := range Types() {
		m.published.WithLabelValues(string(t))
	}
	for _, reason := range []string{droppedOverflow, droppedInvalid, droppedTooLarge, droppedRefused, droppedShutdown} {
		m.dropped.WithLabelValues(reason)
	}
	registry.MustRegister(m.published, m.dropped, m.buffered, m.connected, m.duration, m.rebuilds, m.keyed)
	return m
}

func (m *Metrics) acknowledged(t Type, took time.Duration) {
	m.published.WithLabelValues(string(t)).Inc()
	m.duration.Observe(took.Seconds())
}

func (m *Metrics) drop(reason string, n int) { m.dropped.WithLabelValues(reason).Add(float64(n)) }

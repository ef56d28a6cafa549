package archive

import "github.com/prometheus/client_golang/prometheus"

// Metrics of an Archive.
type Metrics struct {
	saves    *prometheus.CounterVec
	released *prometheus.CounterVec
	kept     prometheus.Gauge
}

// NewMetrics registers the metrics.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		saves: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agent_lifecycle_archive_saves_total",
			Help: "Attempts to keep the objects and volumes of a namespace, by result.",
		}, []string{"result"}),
		released: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "agent_lifecycle_archive_released_total",
			Help: "Archives and volumes whose time was over and that were let go.",
		}, []string{"what"}),
		kept: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "agent_lifecycle_archives",
			Help: "Archives that were there when it was last looked for those whose time is over.",
		}),
	}
	for _, result := range []string{"saved", "failed"} {
		m.saves.WithLabelValues(result)
	}
	for _, what := range []string{whatArchive, whatVolume} {
		m.released.WithLabelValues(what)
	}
	registry.MustRegister(m.saves, m.released, m.kept)
	return m
}

const (
	whatArchive = "archive"
	whatVolume  = "volume"
)

func (m *Metrics) saved(err error) {
	if m == nil {
		return
	}
	result := "saved"
	if err != nil {
		result = "failed"
	}
	m.saves.WithLabelValues(result).Inc()
}

func (m *Metrics) letGo(what string) {
	if m != nil {
		m.released.WithLabelValues(what).Inc()
	}
}

func (m *Metrics) keeps(archives int) {
	if m != nil {
		m.kept.Set(float64(archives))
	}
}

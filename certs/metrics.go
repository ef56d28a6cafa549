package certs

import "github.com/prometheus/client_golang/prometheus"

var (
	notAfterDesc = prometheus.NewDesc(
		"agent_lifecycle_certificate_not_after_timestamp_seconds",
		"When the serving certificate expires, in Unix seconds; absent while there is none.", nil, nil,
	)
	trustedDesc = prometheus.NewDesc(
		"agent_lifecycle_certificate_trusted",
		"1 once every registered webhook configuration trusted the serving certificate, else 0.", nil, nil,
	)
)

// NewCollector returns the metrics of a source, for the server's own registry.
func NewCollector(source Source) prometheus.Collector {
	return collector{source}
}

type collector struct{ source Source }

func (c collector) Describe(out chan<- *prometheus.Desc) {
	out <- notAfterDesc
	out <- trustedDesc
}

func (c collector) Collect(out chan<- prometheus.Metric) {
	if t := c.source.NotAfter(); !t.IsZero() {
		out <- prometheus.MustNewConstMetric(notAfterDesc, prometheus.GaugeValue, float64(t.Unix()))
	}
	trusted := 0.0
	if c.source.Ready() == nil {
		trusted = 1
	}
	out <- prometheus.MustNewConstMetric(trustedDesc, prometheus.GaugeValue, trusted)
}

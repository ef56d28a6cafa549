package reaper

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// A replica that leads no longer must not go on saying what it saw: alerts take the greatest value of all replicas.
func TestResignedMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := NewMetrics(registry)
	m.leading.Set(1)
	for _, seen := range []prometheus.Gauge{m.unhealthy, m.stuck, m.drifted, m.namespaces.WithLabelValues("active")} {
		seen.Set(3)
	}
	m.resign()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, metric := range f.GetMetric() {
			if g := metric.GetGauge(); g != nil && g.GetValue() != 0 {
				t.Errorf("%s is %g", f.GetName(), g.GetValue())
			}
		}
	}
}

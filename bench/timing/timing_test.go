package timing

import (
	"testing"
	"time"
)

func TestPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, test := range []struct {
		of   []time.Duration
		p    int
		want time.Duration
	}{
		{hundred[:1], 50, 1},
		{hundred[:1], 99, 1},
		{hundred[:2], 50, 1},
		{hundred[:3], 50, 2},
		{hundred[:40], 99, 40},
		{hundred, 50, 50},
		{hundred, 99, 99},
	} {
		if got := Percentile(test.of, test.p); got != test.want {
			t.Errorf("p%d of %d values is the %dth, want the %dth", test.p, len(test.of), got, test.want)
		}
	}
}

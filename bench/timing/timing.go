// Package timing says how long things took, for the measurements on a cluster.
package timing

import (
	"math"
	"time"
)

// Percentile is the smallest value that p of a hundred do not exceed. Of fewer than a hundred values the 99th is the longest.
func Percentile(sorted []time.Duration, p int) time.Duration {
	rank := int(math.Ceil(float64(len(sorted)*p) / 100))
	return sorted[max(rank, 1)-1]
}

package program

import (
	"math"
	"runtime/debug"
)

// memoryHeadroom is the part of the memory limit that the Go runtime is not told of: it counts its own memory alone, and the
// kernel counts the program's pages and buffers of sockets too.
const memoryHeadroom = 10

// LimitMemory makes the garbage collector work harder before the container's limit is reached, rather than let the kernel
// end the process. The manifests set GOMEMLIMIT to that limit by the downward API, which cannot say less than all of it; a tenth
// of it is kept back here. Without GOMEMLIMIT nothing changes. It returns the limit in bytes, zero for none.
func LimitMemory() int64 {
	limit := debug.SetMemoryLimit(-1)
	if limit == math.MaxInt64 {
		return 0
	}
	limit -= limit / memoryHeadroom
	debug.SetMemoryLimit(limit)
	return limit
}

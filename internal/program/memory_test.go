package program

import (
	"math"
	"runtime/debug"
	"testing"
)

func TestLimitMemory(t *testing.T) {
	before := debug.SetMemoryLimit(math.MaxInt64)
	defer debug.SetMemoryLimit(before)
	if got := LimitMemory(); got != 0 || debug.SetMemoryLimit(-1) != math.MaxInt64 {
		t.Errorf("without a limit: %d, in force %d", got, debug.SetMemoryLimit(-1))
	}
	debug.SetMemoryLimit(1000 << 20)
	if got := LimitMemory(); got != 900<<20 || debug.SetMemoryLimit(-1) != got {
		t.Errorf("of 1000 MiB: %d, in force %d; want 900 MiB", got, debug.SetMemoryLimit(-1))
	}
}

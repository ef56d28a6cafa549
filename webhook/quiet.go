package webhook

import (
	"fmt"
	"log/slog"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// limitedLog is where net/http writes of what goes wrong with connections: strangers could fill the log with failed
// handshakes. It writes a line a second, ten at once, and says how many it has left out.
type limitedLog struct {
	log     *slog.Logger
	limit   *rate.Limiter
	dropped atomic.Int64
}

func newLimitedLog(log *slog.Logger) *limitedLog {
	return &limitedLog{log: log, limit: rate.NewLimiter(1, 10)}
}

// Write implements io.Writer.
func (l *limitedLog) Write(line []byte) (int, error) {
	if !l.limit.Allow() {
		l.dropped.Add(1)
		return len(line), nil
	}
	message := bounded(string(line), maxComplaint)
	if n := l.dropped.Swap(0); n > 0 {
		message += fmt.Sprintf(" (%d more lines were left out)", n)
	}
	l.log.Warn(message)
	return len(line), nil
}

package idle

import "time"

// situation is what a decision takes.
type situation struct {
	// since is the last activity, or the end of the last thing that kept the agent alive.
	since time.Time

	// kept says that something keeps the agent alive.
	kept bool

	// snoozed is until when the stop was put off; warned when the agent was warned. Zero: neither.
	snoozed, warned time.Time
}

// verdict is what follows.
type verdict struct {
	// deadline is when the agent stops if nothing happens; zero if nothing can stop it now.
	deadline time.Time

	// warn and stop say what is due now.
	warn, stop bool

	// next is when to decide again; zero if only a change can alter anything.
	next time.Time
}

// decide says what is due. Nobody is stopped without having been warned for the whole length of the warning, even if the
// look at the clock came late.
func decide(c *Config, s situation, now time.Time) verdict {
	if !c.Enabled || s.kept {
		return verdict{}
	}
	warning := min(c.Warning, c.Timeout)
	deadline := s.since.Add(c.Timeout)
	if s.snoozed.After(deadline) {
		deadline = s.snoozed
	}
	if s.warned.IsZero() {
		warnAt := deadline.Add(-warning)
		if now.Before(warnAt) {
			return verdict{deadline: deadline, next: warnAt}
		}
		s.warned = now
		if late := now.Add(warning); late.After(deadline) {
			deadline = late
		}
		return verdict{deadline: deadline, warn: true, next: deadline, stop: warning == 0 && !now.Before(deadline)}
	}
	if late := s.warned.Add(warning); late.After(deadline) {
		deadline = late
	}
	return verdict{deadline: deadline, next: deadline, stop: !now.Before(deadline)}
}

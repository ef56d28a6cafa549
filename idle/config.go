package idle

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// Config of a Manager.
type Config struct {
	// Enabled says that the agent stops when it is idle.
	Enabled bool

	// UserType is for people.
	UserType string

	// Timeout is how long there may be no activity.
	Timeout time.Duration

	// CheckInterval is how often the manager looks at least.
	CheckInterval time.Duration

	// Warning is how long before the stop the agent is warned.
	Warning time.Duration

	// SnoozeMax bounds how far the agent may put off its stop.
	SnoozeMax time.Duration

	// Grace is what the agent's process gets between SIGTERM and SIGKILL.
	Grace time.Duration
}

// DefaultConfig is what holds where the environment says nothing.
func DefaultConfig() Config {
	return Config{
		Enabled: true, Timeout: 15 * time.Minute, CheckInterval: time.Minute, Warning: time.Minute,
		SnoozeMax: time.Hour, Grace: 10 * time.Second,
	}
}

// FromEnv reads what the webhook has put into the agent's container. The error names every variable that is wrong, and what
// would be accepted.
//
// Without lifecycle.EnvEnableIdleShutdown an enterprise agent never stops, as with it.
func FromEnv(getenv func(string) string) (Config, error) {
	c := DefaultConfig()
	c.UserType = getenv(lifecycle.EnvUserType)
	c.Enabled = lifecycle.UserType(c.UserType) != lifecycle.Enterprise
	var errs []error
	if s := getenv(lifecycle.EnvEnableIdleShutdown); s != "" {
		enabled, err := strconv.ParseBool(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s is %q; accepted are true and false", lifecycle.EnvEnableIdleShutdown, s))
			enabled = false // what cannot be read keeps the agent
		}
		c.Enabled = enabled
	}
	for _, v := range []struct {
		name  string
		into  *time.Duration
		unit  time.Duration
		least time.Duration
	}{
		{lifecycle.EnvIdleTimeoutMinutes, &c.Timeout, time.Minute, time.Millisecond},
		{lifecycle.EnvIdleCheckIntervalSeconds, &c.CheckInterval, time.Second, time.Millisecond},
		{lifecycle.EnvIdleWarningSeconds, &c.Warning, time.Second, 0},
		{lifecycle.EnvIdleSnoozeMaxMinutes, &c.SnoozeMax, time.Minute, 0},
		{lifecycle.EnvIdleGraceSeconds, &c.Grace, time.Second, 0},
	} {
		s := getenv(v.name)
		if s == "" {
			continue
		}
		n, err := strconv.ParseFloat(s, 64)
		d := time.Duration(n * float64(v.unit))
		if err != nil || math.IsNaN(n) || n > float64(maxDuration/v.unit) || d < v.least {
			errs = append(errs, fmt.Errorf("%s is %q; accepted is a number of %ss, at least %v and at most %v", v.name, s,
				unitName(v.unit), float64(v.least)/float64(v.unit), int64(maxDuration/v.unit)))
			continue
		}
		*v.into = d
	}
	return c, errors.Join(errs...)
}

// maxDuration bounds every setting: a year.
const maxDuration = 365 * 24 * time.Hour

func unitName(unit time.Duration) string {
	if unit == time.Minute {
		return "minute"
	}
	return "second"
}

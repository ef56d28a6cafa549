package idle

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

func testConfig() Config {
	c := DefaultConfig()
	c.Timeout, c.Warning, c.SnoozeMax = 10*time.Minute, time.Minute, 20*time.Minute
	return c
}

// started runs a manager in a bubble of its own time, and returns when it stopped, as an offset.
func started(t *testing.T, config Config) (*Manager, func() time.Duration) {
	t.Helper()
	m, start := New(config), time.Now()
	ended := make(chan time.Duration, 1)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go func() {
		if err := m.Run(ctx); errors.Is(err, ErrIdle) {
			ended <- time.Since(start)
		}
	}()
	return m, func() time.Duration {
		synctest.Wait()
		select {
		case at := <-ended:
			return at
		default:
			return 0
		}
	}
}

func TestManager(t *testing.T) {
	for name, test := range map[string]func(t *testing.T, m *Manager) (stopsAt time.Duration){
		"nothing happens": func(*testing.T, *Manager) time.Duration { return 10 * time.Minute },
		"activity": func(t *testing.T, m *Manager) time.Duration {
			time.Sleep(5 * time.Minute)
			must(t, m.RecordActivity("http"))
			return 15 * time.Minute
		},
		"activity after the warning": func(t *testing.T, m *Manager) time.Duration {
			time.Sleep(9*time.Minute + 30*time.Second)
			synctest.Wait()
			if s := m.Status(); s.State != lifecycle.Idle || !s.Warned {
				t.Errorf("status %+v, want a warned one", s)
			}
			must(t, m.RecordActivity("http"))
			if s := m.Status(); s.State != lifecycle.Running || s.Warned {
				t.Errorf("status %+v, want a running one", s)
			}
			return 19*time.Minute + 30*time.Second
		},
		"a trigger, and its end": func(t *testing.T, m *Manager) time.Duration {
			must(t, m.AddTrigger("cron", "every hour"))
			time.Sleep(3 * time.Hour)
			if s := m.Status(); s.Deadline != nil || s.State != lifecycle.Running {
				t.Errorf("status %+v, want no deadline", s)
			}
			must(t, m.RemoveTrigger("cron"))
			return 3*time.Hour + 10*time.Minute
		},
		"triggers are replaced": func(t *testing.T, m *Manager) time.Duration {
			must(t, m.UpdateTriggers("a", "b"))
			time.Sleep(time.Hour)
			must(t, m.UpdateTriggers("b", "c"))
			time.Sleep(time.Hour)
			must(t, m.UpdateTriggers())
			return 2*time.Hour + 10*time.Minute
		},
		"a lease that is left behind": func(t *testing.T, m *Manager) time.Duration {
			_, err := m.Lease("job", 30*time.Minute)
			must(t, err)
			return 40 * time.Minute
		},
		"a lease that is renewed": func(t *testing.T, m *Manager) time.Duration {
			for range 6 {
				_, err := m.Lease("job", 15*time.Minute)
				must(t, err)
				time.Sleep(10 * time.Minute)
			}
			return 75 * time.Minute // the last one began after 50 minutes, and ends after 65
		},
		"a snooze": func(t *testing.T, m *Manager) time.Duration {
			time.Sleep(9*time.Minute + 30*time.Second)
			synctest.Wait()
			_, granted, err := m.Snooze(10 * time.Minute)
			must(t, err)
			if granted != 10*time.Minute {
				t.Errorf("granted %s", granted)
			}
			return 19*time.Minute + 30*time.Second
		},
		"activity in a snooze": func(t *testing.T, m *Manager) time.Duration {
			_, _, err := m.Snooze(25 * time.Minute)
			must(t, err)
			time.Sleep(time.Minute)
			must(t, m.RecordActivity("chat"))
			if until := m.Status().Snooze; until == nil {
				t.Error("the snooze is gone")
			}
			return 25 * time.Minute
		},
		"activity at the end of a snooze": func(t *testing.T, m *Manager) time.Duration {
			_, _, err := m.Snooze(25 * time.Minute)
			must(t, err)
			time.Sleep(24*time.Minute + 30*time.Second)
			must(t, m.RecordActivity("chat"))
			return 34*time.Minute + 30*time.Second
		},
		"snoozes are bounded": func(t *testing.T, m *Manager) time.Duration {
			for range 3 {
				_, _, err := m.Snooze(time.Hour)
				if err != nil && !errors.Is(err, ErrSnoozeSpent) {
					t.Error(err)
				}
				time.Sleep(5 * time.Minute)
			}
			if _, _, err := m.Snooze(time.Hour); !errors.Is(err, ErrSnoozeSpent) {
				t.Errorf("got %v, want ErrSnoozeSpent", err)
			}
			return 30 * time.Minute
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				m, stoppedAt := started(t, testConfig())
				want := test(t, m)
				if got := stoppedAt(); got != 0 {
					t.Fatalf("stopped after %s, want %s", got, want)
				}
				time.Sleep(want - time.Since(start) - time.Second)
				if got := stoppedAt(); got != 0 {
					t.Fatalf("stopped after %s, want %s", got, want)
				}
				time.Sleep(2 * time.Second)
				if got := stoppedAt(); got != want {
					t.Fatalf("stopped after %s, want %s; status %+v", got, want, m.Status())
				}
				if err := m.RecordActivity("late"); !errors.Is(err, ErrStopping) {
					t.Errorf("activity after the stop: %v", err)
				}
			})
		})
	}
}

func TestNeverStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := testConfig()
		config.Enabled = false
		m, stoppedAt := started(t, config)
		time.Sleep(1000 * time.Hour)
		if got := stoppedAt(); got != 0 {
			t.Errorf("stopped after %s", got)
		}
		if s := m.Status(); s.Deadline != nil || s.KeptAliveBy[0].Kind != "policy" {
			t.Errorf("status %+v", s)
		}
	})
}

func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := started(t, testConfig())
		events, cancel := m.Subscribe()
		defer cancel()
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		var got []string
		for len(events) > 0 {
			e := <-events
			if e.State != nil {
				got = append(got, string(e.State.State))
			} else {
				got = append(got, "warning")
				if e.Warning.SecondsLeft != 60 {
					t.Errorf("warned with %v s left", e.Warning.SecondsLeft)
				}
			}
		}
		if want := []string{"RUNNING", "IDLE", "warning", "SHUTDOWN"}; !equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// Whoever comes after the warning is warned, too: the gateway, when it was started anew.
func TestEventsAfterTheWarning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := started(t, testConfig())
		time.Sleep(9*time.Minute + 20*time.Second)
		synctest.Wait()
		events, cancel := m.Subscribe()
		defer cancel()
		if len(events) != 2 {
			t.Fatalf("there are %d events, want state and warning", len(events))
		}
		if e := <-events; e.State == nil || e.State.State != "IDLE" {
			t.Errorf("the first is %+v", e)
		}
		if e := <-events; e.Warning == nil || e.Warning.SecondsLeft != 40 || !e.Warning.Deadline.Equal(*m.Status().Deadline) {
			t.Errorf("the second is %+v", e)
		}
		if err := m.RecordActivity("test"); err != nil {
			t.Fatal(err)
		}
		after, cancel := m.Subscribe()
		defer cancel()
		if e := <-after; len(after) != 0 || e.State == nil || e.State.State != "RUNNING" {
			t.Errorf("after an activity: %+v and %d more", e, len(after))
		}
	})
}

// TestDecide is about looks at the clock that come late: nobody stops without the warning's whole length.
func TestDecide(t *testing.T) {
	config := testConfig()
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(m float64) time.Time { return start.Add(time.Duration(m * float64(time.Minute))) }
	for name, tc := range map[string]struct {
		s    situation
		now  time.Time
		want verdict
	}{
		"long before":         {situation{since: start}, at(1), verdict{deadline: at(10), next: at(9)}},
		"the warning is due":  {situation{since: start}, at(9), verdict{deadline: at(10), next: at(10), warn: true}},
		"the warning is late": {situation{since: start}, at(60), verdict{deadline: at(61), next: at(61), warn: true}},
		"warned late":         {situation{since: start, warned: at(60)}, at(60.5), verdict{deadline: at(61), next: at(61)}},
		"the stop is due":     {situation{since: start, warned: at(9)}, at(10), verdict{deadline: at(10), next: at(10), stop: true}},
		"kept":                {situation{since: start, kept: true, warned: at(9)}, at(60), verdict{}},
		"snoozed":             {situation{since: start, snoozed: at(20)}, at(12), verdict{deadline: at(20), next: at(19)}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := decide(&config, tc.s, tc.now); got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

// TestWallClock: times are compared by their monotonic part. One without it, as a jump of the wall clock would make, must not
// get into a decision.
func TestWallClock(t *testing.T) {
	m := New(testConfig())
	for name, at := range map[string]time.Time{"since": m.since, "now": m.now()} {
		if at == at.Round(0) {
			t.Errorf("%s has no monotonic part", name)
		}
	}
	must(t, m.RecordActivity("x"))
	if m.since == m.since.Round(0) || m.activity == m.activity.Round(0) {
		t.Error("activity has no monotonic part")
	}
}

func TestFromEnv(t *testing.T) {
	for name, tc := range map[string]struct {
		env     map[string]string
		want    func(*Config)
		wantErr string
	}{
		"nothing": {nil, func(*Config) {}, ""},
		"all of it": {map[string]string{
			"USER_TYPE": "paid", "IDLE_TIMEOUT_MINUTES": "0.5", "IDLE_CHECK_INTERVAL_SECONDS": "5", "IDLE_WARNING_SECONDS": "10",
			"IDLE_SNOOZE_MAX_MINUTES": "1.5", "IDLE_GRACE_SECONDS": "3", "ENABLE_IDLE_SHUTDOWN": "true",
		}, func(c *Config) {
			*c = Config{true, "paid", 30 * time.Second, 5 * time.Second, 10 * time.Second, 90 * time.Second, 3 * time.Second}
		}, ""},
		"off":        {map[string]string{"ENABLE_IDLE_SHUTDOWN": "false"}, func(c *Config) { c.Enabled = false }, ""},
		"enterprise": {map[string]string{"USER_TYPE": "enterprise"}, func(c *Config) { c.UserType, c.Enabled = "enterprise", false }, ""},
		"unreadable keeps the agent": {map[string]string{"ENABLE_IDLE_SHUTDOWN": "maybe"}, func(c *Config) { c.Enabled = false },
			`ENABLE_IDLE_SHUTDOWN is "maybe"; accepted are true and false`},
		"a bad number": {map[string]string{"IDLE_TIMEOUT_MINUTES": "-1"}, func(*Config) {},
			`IDLE_TIMEOUT_MINUTES is "-1"; accepted is a number of minutes, at least 1.6666666666666667e-05 and at most 525600`},
		"not a number": {map[string]string{"IDLE_GRACE_SECONDS": "NaN"}, func(*Config) {},
			`IDLE_GRACE_SECONDS is "NaN"; accepted is a number of seconds, at least 0 and at most 31536000`},
	} {
		t.Run(name, func(t *testing.T) {
			want := DefaultConfig()
			tc.want(&want)
			got, err := FromEnv(func(name string) string { return tc.env[name] })
			if got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if message := ""; err != nil {
				message = err.Error()
				if message != tc.wantErr {
					t.Errorf("error %q, want %q", message, tc.wantErr)
				}
			} else if tc.wantErr != "" {
				t.Errorf("no error, want %q", tc.wantErr)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// Once stopped for another reason, such as SIGTERM, there is no way back, however long the agent takes to go.
func TestStopIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, stopped := started(t, testConfig())
		m.Stop()
		time.Sleep(time.Hour)
		if at := stopped(); at != 0 {
			t.Errorf("it was idle after %s as well", at)
		}
		if s := m.Status(); s.State != lifecycle.Shutdown {
			t.Errorf("state %s, want %s", s.State, lifecycle.Shutdown)
		}
		if err := m.RecordActivity("late"); !errors.Is(err, ErrStopping) {
			t.Errorf("activity: %v, want %v", err, ErrStopping)
		}
	})
}

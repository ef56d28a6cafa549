package main

import (
	"os"
	"strconv"
)

// hurry makes what the agent is told of idleness so many times shorter as the variable HURRY says, so that tests see what a user
// type has been given without waiting for it. The warning stays long enough to react to.
func hurry() error {
	factor, err := strconv.ParseFloat(os.Getenv("HURRY"), 64)
	if err != nil || factor <= 1 {
		return nil
	}
	const leastWarning = 6 // seconds
	for name, least := range map[string]float64{
		"IDLE_TIMEOUT_MINUTES": 0, "IDLE_CHECK_INTERVAL_SECONDS": 0, "IDLE_SNOOZE_MAX_MINUTES": 1, "IDLE_WARNING_SECONDS": leastWarning,
	} {
		told, err := strconv.ParseFloat(os.Getenv(name), 64)
		if err != nil {
			continue // of types that never stop nothing is told
		}
		if err := os.Setenv(name, strconv.FormatFloat(max(told/factor, least), 'f', -1, 64)); err != nil {
			return err
		}
	}
	return nil
}

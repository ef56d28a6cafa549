// Package idle knows whether an agent is idle, and says when it should stop.
//
// An agent is idle when nothing keeps it alive (no trigger, no lease) and its last activity is longer ago than the timeout.
// A trigger is something that the agent waits for or works on and that may last for ever; a lease is one with an end, for work
// that may die without a word. Before an agent stops it is warned, and may put the stop off within a bound.
//
// Manager is the library. Handler puts it on HTTP, on a Unix socket for the agent and in part on TCP for the gateway.
// Package supervisor runs a program under it. Times are taken from the monotonic clock, so that a jump of the wall clock stops
// nobody; the times in answers are for people.
package idle

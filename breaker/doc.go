// Package breaker is the circuit breaker of deletions: a bad image that makes every agent end with 42 must not erase a
// fleet.
//
// State is the pure part: a bucket of tokens that refills, and latches open when it is found empty. Breaker keeps the
// state in one ConfigMap, which the replicas of the server and the reaper share, so that they count together. It opens by
// itself and never closes by itself: an operator looks at what happened and calls Release.
//
// What cannot be read is not taken for closed.
package breaker

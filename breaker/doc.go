// Package breaker is the circuit breaker of deletions: a bad image that makes every agent end with 42 must not erase a
// fleet, and an operator who sees something go wrong can stop every deletion at once.
//
// State is the pure part: a bucket of tokens that refills, and latches open when it is found empty or when an
// operator opens it. Breaker keeps the state in one ConfigMap, which the replicas of the server and the reaper share,
// so that they count together. An operator looks at what happened and calls Release. It closes by itself in one case:
// it had opened by itself, and a deletion that was counted did not come about. Then there is room for as many as were
// given back and no more, so that with more agents waiting it opens again.
//
// There is one breaker for everything: while it is open, no agent deletes itself and no reaper deletes anything, in
// any namespace. What the API server has accepted before goes on: the objects that an owner takes along, the end of a
// Pod.
//
// What cannot be read is not taken for closed.
package breaker

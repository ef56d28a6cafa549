// Package webhook is the admission server: it decodes what the API server asks, gathers the facts of the cluster that a
// verdict takes, calls packages inject and policy, answers and counts.
//
// Admission holds the four answers, on bytes and without HTTP; Server puts them on a TLS listener, beside a plain one for
// health and metrics. What an answer needs from elsewhere comes in through small interfaces: the policy in force
// (PolicyFile), the facts (Cluster), whether the API server keeps container restart rules (RestartRules).
//
// A deletion that an agent asks for is judged by the kubelet's word on its Pod, which may come a moment later: the answer
// waits for it, for a bounded time and in bounded numbers (hold.go). An accepted one is counted by the circuit breaker
// and announced by an Event. What was asked too early is refused with another code than what is refused for good.
//
// What role agents make is stamped (stamp.go), so that the reaper can tell what they have left behind. Nothing waits for
// that: it is the one path where a fault admits.
//
// A policy file with mistakes is refused when it is written (policywrite.go), by the same reading as when it is loaded.
// Here too no answer admits: servers that run keep the last good policy, but none could start.
//
// Three things are kept apart throughout. A denial is the policy's word and names the rule. A fault is ours, or a
// request that we do not understand; but for stamps it refuses too, since nothing that was not judged may pass, and it
// never reads like a denial. Everything else is allowed.
package webhook

// Package fleet looks at the agents that run in a cluster, and brings them what is injected today, one after the other.
//
// Audit says what a policy would make of them: which change would be refused, which Pod would not come up again, who lacks the sidecar.
// The verdicts are package policy's, on the objects as package inject would change them, so they are the server's own. Roll restarts
// agents with today's injected parts: those from before the installation, or those with an older sidecar.
//
// What is decided is pure: judge.go, situation.go, idleness.go, changes.go, rate.go. What asks and writes is apart from it: cluster.go,
// audit.go, roll.go. A signal that cannot be read means that an agent works, and an agent that works is left alone unless somebody says
// otherwise.
package fleet

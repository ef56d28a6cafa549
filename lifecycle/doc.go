// Package lifecycle is the vocabulary that every part of the system shares: the labels and annotations on agents, the
// names the system owns inside an agent's Pod, user types and their tiers, states and exit codes.
//
// It holds meaning and no behaviour: no client, no clock, no I/O. It imports Kubernetes API types only.
package lifecycle

// Package enforcement keeps a record of since when each rule of the policy is enforced, so that a new rule holds for what
// is written from then on and not for the agents that run.
//
// Next is the pure part: it decides what the record becomes, by the policy and the clock. Tracker keeps the record in one
// ConfigMap, which the replicas of the server share and which outlives them. No request waits for it: requests are judged
// by what the Tracker read last.
package enforcement

// Package workload gives one view over every kind of object that runs Pods, so that a rule is written once: decoding
// from JSON, the Pod template wherever the kind keeps it, and visitors over containers.
//
// It is pure: no client, clock, network or file.
package workload

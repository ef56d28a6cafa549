// Package policy judges requests: may this object be stored? It is pure: no client, clock, network or file. What a
// verdict needs to know of the cluster comes as Facts.
//
// A rule is data plus a pure function, one rule to a file; Rules lists them in the order in which their violations are
// reported. Which rules hold in a namespace, and how strictly, is said by a v1alpha1.LifecyclePolicy.
package policy

// Package inject makes an agent's Deployment carry its lifecycle: the sidecar, the volumes and environment it needs, a
// shared PID namespace, the Recreate strategy, and safe defaults for security fields that are absent.
//
// It also stamps what role agents make with the Pod that made it (stamp.go).
//
// It is pure, idempotent and goes by content: whatever stands under a name that the system owns is compared with what
// belongs there, and no marker says "done". Every change is made twice, on the typed object and as a JSON patch
// operation, so that nobody has to diff documents; a property test holds the two together.
package inject

// Package reaper cleans up what everybody else forgot, and deletes nothing that is alive.
//
// Every pass runs four reapers, each with a switch, a file and metrics of its own:
//
//   - namespaces: one of a role agent in which nothing has run for a while is marked, and taken apart by a later pass: workloads,
//     then claims, then the namespace itself.
//   - agents: a Deployment whose agent ended with 42 and that no sidecar has deleted.
//   - claims: those of user types that delete storage whose Deployment has gone.
//   - leftovers: ConfigMaps, Secrets and Jobs that an agent's Pod made, by the stamp that the webhook put on them.
//
// Between passes it looks after agents: their claims and Services get owner references, so that they go with the Deployment where
// the user type says so, and an agent that ended with 42 and is kept all the same gets a fresh Pod.
//
// What the cluster holds is kept in an inventory of small records, fed by watches. What becomes of an object is decided by pure
// functions (decideNamespace, decideForgotten, decideOrphanedClaim, decideLeftover, decideClaim, decideService, decidePod) on
// records and the time. Before anything is deleted the same function decides once more, on what the API server says at that moment,
// and the deletion names the UID and the resourceVersion of that very object. A kind that cannot be read makes the pass a failed one.
// How far a namespace has come stands in its annotations and nowhere else, so that whoever comes next goes on from there.
//
// One replica does it at a time: it holds a Lease of its own, and losing that stops nothing else. Once is the same for one pass and
// without the Lease.
package reaper

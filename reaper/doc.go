// Package reaper looks after what agents leave undone.
//
// So far that is two things. The claims and Services of agents that were made by hand get owner references to their Deployment,
// so that they go with it where the user type says so, and claims that are to be kept lose theirs. And an agent that ended with
// 42 and is kept all the same gets a fresh Pod: the kubelet leaves the old one dead.
//
// One replica of the server does it at a time: it holds a Lease of its own, and losing that stops nothing else. What to do is
// decided by pure functions (decideClaim, decideService, decidePod); every write names the UID and the resourceVersion of what
// the decision was about. What cannot be understood is kept as it is.
package reaper

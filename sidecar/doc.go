// Package sidecar is what runs beside an agent: it notices that the agent ended because it was idle, with exit code 42, and
// asks the API server to delete the agent's own Deployment.
//
// It only triggers. The admission server judges every deletion by what the kubelet reports, so a mistake here costs a request
// and never an agent. Therefore the sidecar needs no state, no watch on the API server and no client library: ten thousand of
// them have to be small and asleep.
//
// The agent's process is watched through a pidfd, which wakes the sidecar when the process ends and not before. Since Linux
// 6.15 the pidfd also says how it ended; elsewhere the end counts together with the file that the agent's lifecycle manager
// writes before it (lifecycle.ExitCodeFile).
package sidecar

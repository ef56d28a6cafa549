// Package gateway makes users' agents on demand, brings them back when they have gone, and connects users with them. It never
// deletes anything: agents go by themselves, see package sidecar.
//
// A Gateway knows the fleet from watches and decides writes on live reads. Every write is a create or an update of the very
// version that was read, so that several gateways, and the same request many times over, make one agent: the API server's
// uniqueness of names is the only lock there is. What is made comes in an order in which no interruption loses anything: a claim
// that is to be kept is made one that is kept before anything else changes; then the Deployment, whose UID the owner
// references of claim and Service need; then these.
//
// A connection to an agent that sleeps is held: the agent is brought back, an old Deployment that is still going is waited out, and
// the request is delivered on a connection of its own once the agent is ready. It is never sent twice: whatever fails
// after the connection stands is the caller's to judge.
//
// Whatever an agent says of itself, by its lifecycle manager, is shown and announced, and never acted upon but for this: an agent
// that says it is stopping gets no new connections.
package gateway

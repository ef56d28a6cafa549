// Package events tells the world outside the cluster what becomes of agents and their namespaces: CloudEvents on NATS
// JetStream. docs/events.md documents each of them, docs/events.schema.json is their schema.
//
// An Event has an id that follows from what happened and not from who noticed when, so that whoever notices again, another
// replica or the same one after a restart, publishes the same event: the stream keeps one of them.
//
// A Publisher has a bounded buffer and one message under way at a time. That is slower than many at once, and it is what
// keeps the order when some are acknowledged and some are not; a few thousand a second are far more than a fleet has to say.
// Nothing waits for NATS but the Publisher itself: what has no room is dropped and counted, and once NATS takes events again
// the caller is asked to say anew how things stand.
package events

//go:generate go test . -run ^TestSchemaIsUpToDate$ -update

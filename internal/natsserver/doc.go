// Package natsserver runs a real NATS server with JetStream inside the program, for tests and the demo. One that is stopped can
// be started again on the same port and directory: that is how NATS is away for a while.
package natsserver

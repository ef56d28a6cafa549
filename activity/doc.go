// Package activity authenticates the gateway to the lifecycle managers of agents.
//
// A lifecycle manager serves port 8377 to the whole Pod network. Without a proof of the sender, any Pod could keep any
// agent awake for ever. So the gateway signs its requests with an Ed25519 key of the Secret lifecycle-keys, and each
// agent holds the public half in its environment.
//
// A signature is for one request to one Pod: it covers the method, the path, a hash of the body, the Pod's UID (the
// audience) and a nonce that the manager has chosen at its start. The manager sends its nonce with each refusal and with
// each stream of events, as in RFC 9449 (DPoP), section 8. So a recorded request is worth nothing at another agent, nor
// after a restart of the manager, and no clock has to be right. Within one life of the manager the sender's instance and
// sequence number keep a request from being accepted twice.
package activity

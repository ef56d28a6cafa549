package main

import (
	"context"
	"time"

	"github.com/dexorder/agent-lifecycle/internal/installation"
)

// variant is one form of admission, with what was measured of it.
type variant struct {
	// name in the tables; namespace is where it applies.
	name, namespace string

	// injects and refuses say what it does, so that it can be seen to do it before it is measured.
	injects, refuses bool

	// install registers it and sets its process.
	install func(context.Context, *benchmark, *variant) error

	// server is the process that answers; 0 where the API server itself does.
	server process

	waited []time.Duration
	// serverCPU holds a sum for each batch. apiCPU is the API server's own, for all creates together: what was still to
	// be done after an answer falls to whatever came next, which the random order spreads evenly.
	serverCPU []time.Duration
	apiCPU    time.Duration
	memory    memory
}

// Variants that others are compared with, or that have goals.
const (
	nameNone = "none"
	namePair = "floor-pair"
	nameOurs = "ours"
)

// variants in the order of the table; the first is what the others are compared with.
func variants(o *options) []*variant {
	return []*variant{
		{name: nameNone, namespace: "bench-none", install: nothing},
		// The floor of any mutating webhook: one call, a constant answer.
		{name: "floor", namespace: "bench-floor", injects: true, install: webhooks(o.floor, "/mutate")},
		// The floor of any pair: two calls, constant answers.
		{name: namePair, namespace: "bench-floor-pair", injects: true, install: webhooks(o.floor, "/mutate", "/validate")},
		{name: "cel", namespace: "bench-cel", injects: true, refuses: true, install: admissionPolicies},
		{name: "stock", namespace: "bench-stock", injects: true, refuses: true, install: webhooks(o.stock, "/mutate", "/validate")},
		{name: nameOurs, namespace: installation.AgentsNamespace, injects: true, refuses: true, install: realServer},
	}
}

func nothing(context.Context, *benchmark, *variant) error { return nil }

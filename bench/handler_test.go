package bench_test

import (
	"testing"

	"github.com/dexorder/agent-lifecycle/bench"
)

// BenchmarkHandler measures one CREATE of a Deployment from the API server's bytes to the answer's. call=both is what one
// create costs a server: the call to /mutate and the call to /validate, which is about the mutated object.
func BenchmarkHandler(b *testing.B) {
	mutate, validate := bodies(b)
	for _, call := range []string{"mutate", "validate", "both"} {
		for _, w := range ways(b) {
			b.Run("call="+call+"/way="+w.name, func(b *testing.B) {
				create := func() {
					if call != "validate" {
						answer(b, w.mutate, mutate)
					}
					if call != "mutate" {
						answer(b, w.validate, validate)
					}
				}
				// What a process finds out once about types belongs to no create.
				for range warmUp {
					create()
				}
				b.ReportAllocs()
				for b.Loop() {
					create()
				}
			})
		}
	}
}

const warmUp = 20

func answer(tb testing.TB, call call, body []byte) []byte {
	out, err := call(body)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// ways are the contenders, the one that the others are compared with first.
func ways(tb testing.TB) []way {
	return []way{
		{"envelope", envelope, envelope},
		stockWay(tb),
		oursWay(tb),
	}
}

// way is one way to answer; both calls take and return an AdmissionReview in JSON.
type way struct {
	name             string
	mutate, validate call
}

type call func(body []byte) ([]byte, error)

// bodies are what the API server sends: bench.Review, and the same with the patch of our answer applied to its object.
func bodies(tb testing.TB) (mutate, validate []byte) {
	tb.Helper()
	first := answer(tb, oursWay(tb).mutate, bench.Review)
	return bench.Review, patchedReview(tb, bench.Review, first)
}

package inject_test

import (
	"os"
	"sync"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/dexorder/agent-lifecycle/inject"
)

// TestConcurrentUse shares one Injector, as the server does; the race detector watches what it hands out.
func TestConcurrentUse(t *testing.T) {
	data := must(yaml.YAMLToJSON(must(os.ReadFile("testdata/plain/in.yaml"))(t)))(t)
	in := injector(t, userNamespace, sidecarImage)
	want := decode(t, data)
	in.Deployment(want, nil, inject.Options{})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 20 {
				got := decode(t, data)
				in.Deployment(got, nil, inject.Options{})
				again := got.DeepCopy()
				in.Deployment(again, got, inject.Options{RestartRules: true})
				if string(marshal(t, got)) != string(marshal(t, want)) {
					t.Error("another result than the first")
				}
			}
		})
	}
	all.Wait()
}

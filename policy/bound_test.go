package policy_test

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/workload"
)

// unbounded is the example policy without the rule object-size, so that the others are asked about any number of things.
func unbounded(t testing.TB) *policy.Policy {
	t.Helper()
	var file map[string]any
	if err := yaml.Unmarshal(v1alpha1.Example(), &file); err != nil {
		t.Fatal(err)
	}
	for _, profile := range file["profiles"].([]any) {
		profile.(map[string]any)["rules"].(map[string]any)["object-size"] = map[string]any{"enforcement": "audit"}
	}
	return must(policy.New(must(v1alpha1.Decode(must(json.Marshal(file))(t)))(t)))(t)
}

// emptyContainers is a Deployment with so many containers of which all is left out.
func emptyContainers(t testing.TB, n int) (*policy.Request, int) {
	t.Helper()
	body := fmt.Appendf(nil, `{"spec": {"template": {"spec": {"containers": [{}%s]}}}}`, strings.Repeat(",{}", n-1))
	o := must(workload.Decode(everyKind[0], body))(t)
	return &policy.Request{Operation: admissionv1.Create, Namespace: userNamespace, Object: o, Facts: &policy.Facts{}}, len(body)
}

// A verdict does not grow with the request, whatever its rules are set to.
func TestViolationsAreBounded(t *testing.T) {
	r, _ := emptyContainers(t, 5000)
	for name, p := range map[string]*policy.Policy{"with object-size": examplePolicy(t), "without": unbounded(t)} {
		v := p.Review(r)
		if v.Allowed() {
			t.Errorf("%s: the request is admitted", name)
		}
		const most = 101 // and the one that says that there are more
		if len(v.Denials) > most || len(v.Warnings) > most || len(v.Audits) > most {
			t.Errorf("%s: %d denials, %d warnings, %d audits", name, len(v.Denials), len(v.Warnings), len(v.Audits))
		}
		if last := v.Denials[len(v.Denials)-1]; name == "without" && !strings.HasPrefix(last.Message, "and more") {
			t.Errorf("%s: the last denial is %s", name, last)
		}
	}
}

// What is left out of a full list of audits is not left out of the judgement: a rule that comes later still refuses.
func TestFullListHidesNoDenial(t *testing.T) {
	fixture := readFixture(t, "testdata/read-only-rootfs/deny-writable.yaml")
	fixture.Profile = json.RawMessage(`{"rules": {"object-size": {"maxContainers": 1000, "maxEnv": 10000, "maxVolumeMounts": 10000}, "image-allowlist": {"enforcement": "audit"}}}`)
	p := fixture.policy(t)
	r, _ := fixture.request(t, p)
	for range 300 {
		other := r.Object.Template.Spec.Containers[0].DeepCopy()
		other.Image = "nginx"
		r.Object.Template.Spec.InitContainers = append(r.Object.Template.Spec.InitContainers, *other)
	}
	v := p.Review(r)
	if len(v.Audits) != 101 || !strings.HasPrefix(v.Audits[100].Message, "and more") {
		t.Errorf("%d audits, want 100 and one that says that there are more", len(v.Audits))
	}
	if !slices.ContainsFunc(v.Denials, func(d policy.Violation) bool { return d.Rule == "read-only-rootfs" }) {
		t.Errorf("read-only-rootfs does not refuse: %+v", v.Denials)
	}
}

// maxAllocated is what a review may allocate for each byte of the request, and once.
const (
	maxAllocatedPerByte = 80
	maxAllocatedOnce    = 512 << 10
)

// maxForgotten is what a review may allocate again under the race detector, where a sync.Pool forgets a quarter, by
// chance, of what it is given: each of the 101 violations of a verdict may find the pool of regexp empty and take 84
// KB.
const maxForgotten = 101 * 84 << 10

// FuzzReviewAllocations bounds what a verdict costs by what the request costs its sender.
func FuzzReviewAllocations(f *testing.F) {
	for _, n := range []int{1, 100, 101, 20_000} {
		for list, element := range map[string]string{
			`"containers": [`:                         `{}`,
			`"initContainers": [`:                     `{"name":"lifecycle-sidecar"}`,
			`"volumes": [`:                            `{}`,
			`"imagePullSecrets": [`:                   `{}`,
			`"resourceClaims": [`:                     `{"resourceClaimName":""}`,
			`"volumes": [{"projected": {"sources": [`: `{}`,
			`"containers": [{"env": [`:                `{"valueFrom":{}}`,
			`"containers": [{"envFrom": [`:            `{}`,
			`"containers": [{"volumeMounts": [`:       `{"name":"lifecycle-token"}`,
			`"containers": [{"volumeDevices": [`:      `{"devicePath":"/run/agent"}`,
		} {
			body := `{"spec": {"template": {"spec": {` + list + element + strings.Repeat(","+element, n-1)
			f.Add(uint8(0), closed(body))
		}
	}
	policies := []*policy.Policy{examplePolicy(f), unbounded(f)}
	once := uint64(maxAllocatedOnce)
	if underRaceDetector() {
		once += maxForgotten
	}
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		o, err := workload.Decode(kindOfIndex(kind), body)
		if err != nil {
			return
		}
		r := &policy.Request{Operation: admissionv1.Create, Namespace: userNamespace, Object: o, Facts: &policy.Facts{}}
		for _, p := range policies {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			p.Needs(r)
			p.Review(r)
			runtime.ReadMemStats(&after)
			if got, most := after.TotalAlloc-before.TotalAlloc, uint64(len(body))*maxAllocatedPerByte+once; got > most {
				t.Errorf("%d bytes were allocated for a request of %d, more than %d", got, len(body), most)
			}
		}
	})
}

// underRaceDetector tells whether this program was built with -race.
func underRaceDetector() bool {
	build, _ := debug.ReadBuildInfo()
	return build != nil && slices.Contains(build.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// closed ends what is open in a JSON text that has no brackets in strings.
func closed(body string) []byte {
	var open []rune
	for _, r := range body {
		switch r {
		case '{':
			open = append(open, '}')
		case '[':
			open = append(open, ']')
		case '}', ']':
			open = open[:len(open)-1]
		}
	}
	slices.Reverse(open)
	return []byte(body + string(open))
}

func kindOfIndex(kind uint8) schema.GroupVersionKind { return everyKind[int(kind)%len(everyKind)] }

// BenchmarkReview tells what a request of 1,000 containers costs: its allocations are bounded by the rule object-size, and
// without it by the number of violations that are collected.
func BenchmarkReview(b *testing.B) {
	for name, p := range map[string]*policy.Policy{"object-size": examplePolicy(b), "audited": unbounded(b)} {
		b.Run(name, func(b *testing.B) {
			r, size := emptyContainers(b, 1000)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				p.Review(r)
			}
		})
	}
}

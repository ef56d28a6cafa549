package webhook

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

func TestWeigh(t *testing.T) {
	for body, want := range map[string]weight{
		`{}`:                               {objects: 1},
		`{"a":1,"b":"x:y,{[n","c":null}`:   {objects: 1, members: 3},
		`{"a":[1,"\\\"[{",3]}`:             {objects: 1, members: 1, scalars: 2},
		`[{},{"b":{}},null,[]]`:            {objects: 1, members: 1, listed: 4, scalars: 3},
		`{"a":{"b":["\\",{"c":"\""},{}]}}`: {objects: 2, members: 3, listed: 2, scalars: 2},
		`}[{}`:                             {},
		`{"a`:                              {objects: 1},
	} {
		want.bytes = len(body)
		if got, err := weigh([]byte(body)); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", body, got, err, want)
		}
	}
}

func TestWeighRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ body, message string }{
		"deep":               {strings.Repeat("[", maxNesting+1), "nests more than 128 deep"},
		"many objects":       {"[" + strings.Repeat("{},", maxListed+1), "more than 20000 objects in lists"},
		"many nulls":         {"[" + strings.Repeat("null,", maxListed+1), "more than 20000 objects in lists"},
		"many members":       {"{" + strings.Repeat(`"a":1,`, maxDecoded/memberBytes+1), "at most 64 MiB"},
		"one brace too many": {"{" + strings.Repeat(`"a":1,`, maxDecoded/memberBytes+1) + "}}", "at most 64 MiB"},
		"an open string":     {"{" + strings.Repeat(`"a":1,`, maxDecoded/memberBytes+1) + `"`, "at most 64 MiB"},
		"many small strings": {"[" + strings.Repeat(`"",`, maxDecoded/scalarBytes+1), "at most 64 MiB"},
	} {
		if _, err := weigh([]byte(tt.body)); err == nil || !strings.Contains(err.Error(), tt.message) {
			t.Errorf("%s: %v, want %q", name, err, tt.message)
		}
	}
	deep := strings.Repeat("[", maxNesting) + strings.Repeat("]", maxNesting)
	if _, err := weigh([]byte(deep)); err != nil {
		t.Errorf("as deep as may be: %v", err)
	}
}

// FuzzWeigh holds that a string is never taken for structure, whatever is escaped in it.
func FuzzWeigh(f *testing.F) {
	f.Add(`\"{`)
	f.Add("\\\\\"")
	f.Fuzz(func(t *testing.T, s string) {
		quoted := raw(t, []string{s, s}).Raw
		if got, err := weigh(quoted); err != nil || got != (weight{bytes: len(quoted), scalars: 1}) {
			t.Errorf("%s: %+v, %v", quoted, got, err)
		}
	})
}

// hostile are the parts of a review that make the most of the fewest bytes, each n times.
var hostile = map[string]func(n int) string{
	"containers":       inPod("containers", `{}`),
	"null containers":  inPod("containers", `null`),
	"initContainers":   inPod("initContainers", `{}`),
	"ephemeral":        inPod("ephemeralContainers", `{}`),
	"volumes":          inPod("volumes", `{}`),
	"env":              func(n int) string { return hostilePod(`"containers":[{"env":[` + repeated(`{}`, n) + `]}]`) },
	"envFrom":          func(n int) string { return hostilePod(`"containers":[{"envFrom":[` + repeated(`{}`, n) + `]}]`) },
	"pointers":         inPod("containers", `{"lifecycle":{"postStart":{"exec":{}}},"livenessProbe":{"exec":{}},"securityContext":{"capabilities":{},"seLinuxOptions":{}}}`),
	"tolerations":      inPod("tolerations", `{}`),
	"security context": inPod("containers", `{"securityContext":{"capabilities":{"add":["","","",""]}}}`),
	"hostAliases":      inPod("hostAliases", `{"hostnames":["","","","",""]}`),
	"args":             func(n int) string { return hostilePod(`"containers":[{"args":[` + repeated(`""`, n) + `]}]`) },
	"nodeSelector":     func(n int) string { return hostilePod(`"nodeSelector":{` + members(n) + `}`) },
	"resources": func(n int) string {
		return hostilePod(`"containers":[{"resources":{"limits":{` + strings.ReplaceAll(members(n), `""`, `"1"`) + `}}}]`)
	},
	"unknown": func(n int) string { return hostilePod(`"unknown":[` + repeated(`{}`, n) + `]`) },
	"labels":  func(n int) string { return hostileDeployment(`"metadata":{"labels":{` + members(n) + `}}`) },
	"managedFields": func(n int) string {
		return hostileDeployment(`"metadata":{"managedFields":[` + repeated(`{}`, n) + `]}`)
	},
	"conditions": func(n int) string { return hostileDeployment(`"status":{"conditions":[` + repeated(`{}`, n) + `]}`) },
	"owners": func(n int) string {
		return hostileDeployment(`"metadata":{"ownerReferences":[` + repeated(`{}`, n) + `]}`)
	},
	"nested": func(n int) string {
		return hostileDeployment(`"deep":[` + repeated(strings.Repeat("[", 100)+strings.Repeat("]", 100), n/100) + `]`)
	},
	"claim templates": func(n int) string {
		return hostileReview("StatefulSet", "statefulsets", `{"spec":{"volumeClaimTemplates":[`+repeated(`{}`, n)+`]}}`, "")
	},
	"groups": func(n int) string {
		return hostileReview("Deployment", "deployments", `{}`, `"userInfo":{"groups":[`+repeated(`""`, n)+`]},`)
	},
	"extra": func(n int) string {
		return hostileReview("Deployment", "deployments", `{}`, `"userInfo":{"extra":{`+strings.ReplaceAll(members(n), `""`, `[""]`)+`}},`)
	},
	"options": func(n int) string {
		return hostileReview("Deployment", "deployments", `{}`, `"options":{"dryRun":[`+repeated(`""`, n)+`]},`)
	},
}

func inPod(field, element string) func(n int) string {
	return func(n int) string { return hostilePod(`"` + field + `":[` + repeated(element, n) + `]`) }
}

func repeated(element string, n int) string {
	return strings.TrimSuffix(strings.Repeat(element+",", n), ",")
}

func members(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"%x":"",`, i)
	}
	return strings.TrimSuffix(b.String(), ",")
}

func hostilePod(spec string) string {
	return hostileDeployment(`"spec":{"template":{"spec":{` + spec + `}}}`)
}

func hostileDeployment(fields string) string {
	return hostileReview("Deployment", "deployments", `{`+fields+`}`, "")
}

func hostileReview(kind, resource, object, more string) string {
	return `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1","kind":{"group":"apps","version":"v1",` +
		`"kind":"` + kind + `"},"resource":{"group":"apps","version":"v1","resource":"` + resource + `"},"namespace":"dexorder-agents",` +
		`"name":"a","operation":"UPDATE",` + more + `"object":` + object + `,"oldObject":` + object + `}}`
}

// decodeAll decodes what a body holds, as an answer begins.
func decodeAll(body []byte) any {
	r, err := decodeReview(body)
	if err != nil {
		return err
	}
	e, err := understand(validates, r)
	if err != nil {
		return err
	}
	object, old, err := (&task{request: r, gvk: e.kind}).objects()
	return []any{r, object, old, err}
}

// What weigh estimates covers what decoding takes: all that is in use afterwards, and a quarter more for what grows.
func TestWeightCoversMemory(t *testing.T) {
	for name, build := range hostile {
		t.Run(name, func(t *testing.T) {
			body := []byte(build(2000))
			w, err := weigh(body)
			if err != nil {
				t.Fatal(err)
			}
			before := heapInUse()
			decoded := decodeAll(body)
			used := heapInUse() - before
			if parts, ok := decoded.([]any); !ok || parts[3] != nil {
				t.Fatalf("not decoded: %v", decoded)
			}
			runtime.KeepAlive(decoded)
			runtime.KeepAlive(body)
			t.Logf("%d bytes of JSON: %d in use (%.1f a byte), estimated %d", len(body), used, float64(used)/float64(len(body)), w.decoded())
			if used*5/4 > w.decoded()+64<<10 {
				t.Errorf("decoding takes %d bytes, estimated were %d with what grows", used, w.decoded())
			}
		})
	}
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// newDefaultAdmission judges by the example policy.
func newDefaultAdmission(t testing.TB) *Admission {
	t.Helper()
	active, err := compile(v1alpha1.Example())
	if err != nil {
		t.Fatal(err)
	}
	return &Admission{
		Policies: policyOf{active.Active}, Facts: fakeFacts(noFacts), RestartRules: rulesKept(true),
		Metrics: NewMetrics(prometheus.NewRegistry(), "test"), Logger: slog.New(slog.DiscardHandler),
	}
}

// policyOf is a PolicySource of one policy.
type policyOf struct{ active Active }

func (p policyOf) Active() Active { return p.active }

// Allocated bytes that a hostile body may cost in all, from its first byte to the answer: hostileBytes for any, and
// hostilePerByte times what weigh estimates. Slices that grow are counted each time.
const (
	hostileBytes   = 256 << 10
	hostilePerByte = 8

	// hostilePolicy is for each byte of a policy file, which is read again for each of its first 50 mistakes.
	hostilePolicy = 2 << 10
)

// allocated returns how many bytes of memory a function allocates.
func allocated(f func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

// FuzzHostileBody holds that what a body costs is bounded by what it was estimated at before anything of it was decoded,
// on each path, the policy's judgement and the answer included.
func FuzzHostileBody(f *testing.F) {
	for _, build := range hostile {
		f.Add([]byte(build(4000)))
	}
	for _, policy := range []string{
		"a: &a [1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b]\n", "[" + strings.Repeat("a,", 5000), strings.Repeat("- ", 1000),
		strings.Repeat("[", 1000), "kind: LifecyclePolicy\nprofiles: [" + strings.Repeat("{a: 1},", 500) + "]\n",
	} {
		f.Add(reviewOf(f, newPolicyRequest(f, policyFileOf(policy))))
	}
	a := newDefaultAdmission(f)
	allowance := int64(1)
	if underRaceDetector() {
		allowance = 4 // a sync.Pool, such as the one of regexp, forgets a part of what it is given
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		w, err := weigh(body)
		if err != nil {
			return
		}
		for name, answer := range map[string]func(context.Context, []byte, []byte) ([]byte, error){
			"mutate": a.Mutate, "policy": a.ReviewPolicy, "stamp": a.Stamp, "validate": a.Validate,
		} {
			cost := allocated(func() { _, _ = answer(context.Background(), nil, body) })
			most := hostileBytes + hostilePerByte*w.decoded()
			if name == "policy" {
				most += hostilePolicy * int64(len(body))
			}
			if most *= allowance; cost > most {
				t.Errorf("/%s: %d bytes were allocated for a body of %d, at most %d should be", name, cost, len(body), most)
			}
		}
	})
}

// underRaceDetector tells whether this program was built with -race.
func underRaceDetector() bool {
	build, _ := debug.ReadBuildInfo()
	return build != nil && slices.Contains(build.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// BenchmarkHostileBody measures what a byte of a hostile body costs.
func BenchmarkHostileBody(b *testing.B) {
	a := newDefaultAdmission(b)
	for _, name := range []string{"containers", "env", "volumes", "args", "labels", "managedFields", "claim templates"} {
		body := []byte(hostile[name](2000))
		b.Run(strings.ReplaceAll(name, " ", "-"), func(b *testing.B) {
			b.ReportAllocs()
			var bytesPerByte float64
			for b.Loop() {
				cost := allocated(func() { _, _ = a.Validate(context.Background(), nil, bytes.Clone(body)) })
				bytesPerByte = float64(cost) / float64(len(body))
			}
			b.ReportMetric(bytesPerByte, "B/body-byte")
		})
	}
}

// BenchmarkWeigh measures what the estimate costs an ordinary request.
func BenchmarkWeigh(b *testing.B) {
	body := reviewOf(b, newRequest(b))
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := weigh(body); err != nil {
			b.Fatal(err)
		}
	}
}

package workload_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/dexorder/agent-lifecycle/workload"
)

// TestQuantities: what would cost the parser more than a moment is not parsed, and what Kubernetes writes is.
func TestQuantities(t *testing.T) {
	decode := func(text string) (q resource.Quantity, err error) {
		err = json.Unmarshal([]byte(text), &q, json.WithUnmarshalers(workload.Quantities()))
		return q, err
	}
	for _, text := range []string{
		`"1e-9999999"`, `1e-9999999`, `"9.1E+999999999"`, `"` + strings.Repeat("9", 1<<20) + `"`, strings.Repeat("9", 1<<20),
	} {
		if _, err := decode(text); err == nil || !strings.Contains(err.Error(), "too long for a quantity") {
			t.Errorf("%.20s: %v, want it refused unread", text, err)
		}
	}
	for text, want := range map[string]string{
		`"100m"`: "100m", `2`: "2", `"64Mi"`: "64Mi", `"1E"`: "1E", `"1e3"`: "1e3", `"1e-3"`: "1e-3", `0.5`: "500m", `null`: "0",
		`"9223372036854775807"`: "9223372036854775807",
	} {
		if q, err := decode(text); err != nil || q.String() != want {
			t.Errorf("%s: %s, %v; want %s", text, q.String(), err, want)
		}
	}
}

// TestDecodeBoundsQuantities: wherever an object has one.
func TestDecodeBoundsQuantities(t *testing.T) {
	pod := schema.GroupVersionKind{Version: "v1", Kind: "Pod"}
	for _, spec := range []string{
		`"containers":[{"resources":{"limits":{"cpu":%s}}}]`, `"overhead":{"cpu":%s}`, `"volumes":[{"emptyDir":{"sizeLimit":%s}}]`,
	} {
		_, err := workload.Decode(pod, fmt.Appendf(nil, `{"spec":{`+spec+`}}`, `"1e-9999999"`))
		if semantic := new(json.SemanticError); !errors.As(err, &semantic) || !strings.Contains(err.Error(), "exponent has 7 digits") {
			t.Errorf("%s: %v", spec, err)
		}
	}
}

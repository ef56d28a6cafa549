package fleet

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// TestPolicyMissing: what is said where the policy's ConfigMap is gone, or holds none, is true whether servers run or
// not.
func TestPolicyMissing(t *testing.T) {
	const missing = `there is no ConfigMap "lifecycle-policy" in namespace "s"`
	for name, tc := range map[string]struct {
		servers    int // HTTP status of their Deployment
		ready      int32
		configMap  map[string]string // nil: there is none
		is         error
		want, deny string
	}{
		"never installed":             {404, 0, nil, ErrNotInstalled, "the system is not installed: " + missing, "server"},
		"deleted, servers run":        {200, 3, nil, ErrNoPolicy, missing + "; the servers that run (3 ready) go on with the last good one that they read; none can start anew", "not installed"},
		"deleted, none is ready":      {200, 0, nil, ErrNoPolicy, missing + "; no server is ready, and none can start. Apply the installation again", "go on"},
		"deleted, it cannot be asked": {403, 0, nil, ErrNoPolicy, missing + "; whether servers go on with an earlier one is not known: ", "not installed"},
		"empty, none is ready":        {200, 0, map[string]string{"x": "y"}, ErrNoPolicy, "holds is no policy; no server is ready, and none can start:\n", "go on"},
		"empty, servers run":          {200, 1, map[string]string{}, ErrNoPolicy, `the servers that run (1 ready) go on with the last good one`, "not installed"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				answer := func(code int, o any) { w.WriteHeader(code); _ = json.NewEncoder(w).Encode(o) }
				failure := func(code int, reason metav1.StatusReason) {
					answer(code, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: reason, Code: int32(code)})
				}
				switch {
				case strings.Contains(r.URL.Path, "/configmaps/") && tc.configMap == nil:
					failure(404, metav1.StatusReasonNotFound)
				case strings.Contains(r.URL.Path, "/configmaps/"):
					answer(200, corev1.ConfigMap{Data: tc.configMap})
				case tc.servers == 404:
					failure(404, metav1.StatusReasonNotFound)
				case tc.servers == 403:
					failure(403, metav1.StatusReasonForbidden)
				default:
					answer(200, appsv1.Deployment{Status: appsv1.DeploymentStatus{ReadyReplicas: tc.ready}})
				}
			}))
			defer server.Close()
			c, err := Connect(&rest.Config{Host: server.URL, QPS: -1}, "s")
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.Policy(t.Context())
			if !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), tc.deny) {
				t.Errorf("%v\nwant %v with %q and without %q", err, tc.is, tc.want, tc.deny)
			}
		})
	}
}

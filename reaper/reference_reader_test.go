package reaper

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// apiAnswers are what an API server answers by path: a list's items, or a status if it is a number. What it does not
// know is 404.
type apiAnswers struct {
	kinds map[string][]metav1.APIResource // by group/version
	items map[string]string
	fails map[string]int

	mu    sync.Mutex
	asked []string
}

func (a *apiAnswers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.asked = append(a.asked, r.URL.Path)
	a.mu.Unlock()
	answer := func(status int, body any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body)
	}
	if status, fails := a.fails[r.URL.Path]; fails {
		answer(status, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: int32(status), Reason: metav1.StatusReasonForbidden, Message: "not for you"})
		return
	}
	switch path := r.URL.Path; path {
	case "/api":
		answer(http.StatusOK, metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}})
		return
	case "/apis":
		groups := metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
		for _, gv := range slices.Sorted(maps.Keys(a.kinds)) {
			if group, version, has := strings.Cut(gv, "/"); has {
				v := metav1.GroupVersionForDiscovery{GroupVersion: gv, Version: version}
				groups.Groups = append(groups.Groups, metav1.APIGroup{Name: group, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v})
			}
		}
		answer(http.StatusOK, groups)
		return
	}
	for gv, kinds := range a.kinds {
		if r.URL.Path == "/apis/"+gv || r.URL.Path == "/api/"+gv {
			answer(http.StatusOK, metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList"}, GroupVersion: gv, APIResources: kinds})
			return
		}
	}
	key := r.URL.Path
	if next := r.URL.Query().Get("continue"); next != "" {
		key += "?" + next
	}
	items, has := a.items[key]
	if !has {
		answer(http.StatusNotFound, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound})
		return
	}
	next := ""
	if _, more := a.items[key+"?more"]; more {
		next = "more"
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{"metadata":{"resourceVersion":"1","continue":"` + next + `"},"items":[` + items + `]}`))
}

func (a *apiAnswers) read(t *testing.T, names ...string) *mentions {
	t.Helper()
	server := httptest.NewServer(a)
	defer server.Close()
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL, QPS: -1})
	if err != nil {
		t.Fatal(err)
	}
	wanted := map[string]bool{}
	for _, name := range names {
		wanted[name] = true
	}
	return (&referenceReader{client: client}).read(t.Context(), "agent-x", wanted)
}

func listable(names ...string) []metav1.APIResource {
	var all []metav1.APIResource
	for _, name := range names {
		all = append(all, metav1.APIResource{Name: name, Kind: name, Namespaced: true, Verbs: metav1.Verbs{"get", "list"}})
	}
	return all
}

func TestReferenceReader(t *testing.T) {
	a := &apiAnswers{
		kinds: map[string][]metav1.APIResource{
			"v1":                   append(listable("configmaps", "events", "services"), metav1.APIResource{Name: "namespaces", Verbs: metav1.Verbs{"list"}}),
			"networking.k8s.io/v1": listable("ingresses", "networkpolicies"),
			"x.io/v1":              append(listable("things", "things/status"), metav1.APIResource{Name: "reviews", Namespaced: true, Verbs: metav1.Verbs{"create"}}),
			"gone.io/v1":           listable("gone"),
			"metrics.k8s.io/v1":    listable("pods"),
			"wgpolicyk8s.io/v1":    listable("policyreports"),
		},
		items: map[string]string{
			"/api/v1/namespaces/agent-x/services":                                 ``,
			"/apis/networking.k8s.io/v1/namespaces/agent-x/ingresses":             `{"metadata":{"name":"i"},"spec":{"tls":[{"secretName":"tls"}]}}`,
			"/apis/x.io/v1/namespaces/agent-x/things":                             `{"metadata":{"name":"cluster"},"spec":{"ref":"one"}}`,
			"/apis/x.io/v1/namespaces/agent-x/things?more":                        `{"metadata":{"name":"b"},"spec":{"ref":"two"}}`,
			"/apis/wgpolicyk8s.io/v1/namespaces/agent-x/policyreports":            `{"metadata":{"name":"r"},"results":["reported"]}`,
			"/api/v1/namespaces/agent-x/events":                                   `{"metadata":{"name":"e"},"message":"reported"}`,
			"/api/v1/persistentvolumes":                                           `{"metadata":{"name":"v"},"spec":{"csi":{"nodeStageSecretRef":{"name":"stage"}}}}`,
			"/apis/storage.k8s.io/v1/storageclasses":                              `{"parameters":{"csi.storage.k8s.io/node-stage-secret-name":"${pvc.name}-key"}}`,
			"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations": `{"metadata":{"name":"w","annotations":{"ca":"agent-x/ca"}}}`,
		},
		fails: map[string]int{"/apis/metrics.k8s.io/v1": http.StatusServiceUnavailable},
	}
	claims := `{"metadata":{"name":"data"}}`
	a.items["/api/v1/namespaces/agent-x/persistentvolumeclaims"] = claims
	m := a.read(t, "one", "two", "tls", "stage", "ca", "data-key", "reported", "unknown")
	if want := []string{"ca", "data-key", "one", "stage", "tls", "two"}; m.unknown != "" || !slices.Equal(slices.Sorted(maps.Keys(m.names)), want) {
		t.Errorf("mentioned are %v (%s), want %v", m.names, m.unknown, want)
	}
	if m.granted || !m.makers["cluster"] || !m.makers["b"] || len(m.makers) != 2 {
		t.Errorf("granted %v, makers %v", m.granted, m.makers)
	}
	for _, not := range []string{"configmaps", "policyreports", "networkpolicies", "events", "reviews", "status", "metrics.k8s.io/v1/namespaces"} {
		if slices.ContainsFunc(a.asked, func(path string) bool { return strings.HasSuffix(path, "/"+not) }) {
			t.Errorf("asked for %s: %v", not, a.asked)
		}
	}
}

// What cannot be read may refer to everything.
func TestReferenceReaderUnknown(t *testing.T) {
	const things = "/apis/x.io/v1/namespaces/agent-x/things"
	for name, tc := range map[string]struct {
		change func(*apiAnswers)
		want   string
	}{
		"a kind that may not be listed": {func(a *apiAnswers) { a.fails[things] = http.StatusForbidden }, "list things.x.io: not for you"},
		"a kind that is broken":         {func(a *apiAnswers) { a.fails[things] = http.StatusInternalServerError }, "list things.x.io: "},
		"an answer that is cut off":     {func(a *apiAnswers) { a.items[things] = `{"metadata":{"name":"a"}` }, "list things.x.io: "},
		"a group that does not answer":  {func(a *apiAnswers) { a.fails["/apis/x.io/v1"] = http.StatusServiceUnavailable }, "kinds of x.io/v1 cannot be told: "},
		"no groups":                     {func(a *apiAnswers) { a.fails["/apis"] = http.StatusServiceUnavailable }, ""},
		"volumes":                       {func(a *apiAnswers) { a.fails["/api/v1/persistentvolumes"] = http.StatusForbidden }, "list persistentvolumes: not for you"},
	} {
		a := &apiAnswers{
			kinds: map[string][]metav1.APIResource{"v1": nil, "x.io/v1": listable("things")}, items: map[string]string{things: ``}, fails: map[string]int{},
		}
		if m := a.read(t, "a"); m.unknown != "" {
			t.Fatalf("before: %s", m.unknown)
		}
		tc.change(a)
		if m := a.read(t, "a"); m.unknown == "" || !strings.Contains(m.unknown, tc.want) {
			t.Errorf("%s: unknown is %q, want %q", name, m.unknown, tc.want)
		}
	}
}

func TestReferenceGrant(t *testing.T) {
	a := &apiAnswers{
		kinds: map[string][]metav1.APIResource{"v1": nil, "gateway.networking.k8s.io/v1beta1": listable("referencegrants")},
		items: map[string]string{"/apis/gateway.networking.k8s.io/v1beta1/namespaces/agent-x/referencegrants": `{"metadata":{"name":"g"},"spec":{"to":[{"kind":"Secret"}]}}`},
	}
	if m := a.read(t, "any"); !m.granted || !m.has("any") {
		t.Errorf("%+v", m)
	}
}

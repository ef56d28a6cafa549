package fleet

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// TestPages: a list is read to its end, also where a continuation has expired meanwhile, and begins anew in no case.
func TestPages(t *testing.T) {
	expired := func(next string) any {
		return metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, ListMeta: metav1.ListMeta{Continue: next},
			Status: metav1.StatusFailure, Reason: metav1.StatusReasonExpired, Code: http.StatusGone, Message: "too old",
		}
	}
	page := func(next string, names ...string) any {
		list := metav1.PartialObjectMetadataList{ListMeta: metav1.ListMeta{Continue: next}}
		for _, name := range names {
			list.Items = append(list.Items, metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: name}})
		}
		return list
	}
	for _, tc := range []struct {
		name  string
		pages map[string]any // by continuation
		want  []string
		fails string
	}{
		{"one", map[string]any{"": page("", "a")}, []string{"a"}, ""},
		{"three", map[string]any{"": page("1", "a"), "1": page("2", "b"), "2": page("", "c")}, []string{"a", "b", "c"}, ""},
		{"expired", map[string]any{"": page("1", "a"), "1": expired("1b"), "1b": page("", "b")}, []string{"a", "b"}, ""},
		{"expired for good", map[string]any{"": page("1", "a"), "1": expired("")}, []string{"a"}, `list deployments of namespace "n": too old`},
		{"expired again and again", map[string]any{"": page("1", "a"), "1": expired("1")}, []string{"a"}, `list deployments of namespace "n": too old`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if want := fmt.Sprint(pageSize); r.URL.Query().Get("limit") != want || r.URL.Path != "/apis/apps/v1/namespaces/n/deployments" {
					t.Errorf("asks for %s", r.URL)
				}
				answer := tc.pages[r.URL.Query().Get("continue")]
				w.Header().Set("Content-Type", "application/json")
				if s, ok := answer.(metav1.Status); ok {
					w.WriteHeader(int(s.Code))
				}
				_ = json.NewEncoder(w).Encode(answer)
			}))
			defer server.Close()
			c, err := Connect(&rest.Config{Host: server.URL}, "s")
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			err = c.eachMetadata(t.Context(), deployments, "n", "", func(m *metav1.PartialObjectMetadata) error {
				got = append(got, m.Name)
				return nil
			})
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if (err == nil) != (tc.fails == "") || err != nil && !strings.Contains(err.Error(), tc.fails) {
				t.Errorf("error %v, want %q", err, tc.fails)
			}
		})
	}
}

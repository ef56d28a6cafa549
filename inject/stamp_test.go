package inject_test

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gomodules.xyz/jsonpatch/v2"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/inject"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

const (
	stampNamespace = "agent-ceo"
	stampPod       = "ceo-6d4b75cb6d-x2v9q"
	stampUID       = "0d5a3b46-2f3e-4d33-8a5c-6f1f5c9b7a10"
)

// podUser is who calls with the token of a Pod.
func podUser(username string, names, uids []string) *authenticationv1.UserInfo {
	return &authenticationv1.UserInfo{Username: username, Extra: map[string]authenticationv1.ExtraValue{
		lifecycle.ExtraPodName: names, lifecycle.ExtraPodUID: uids,
	}}
}

func TestStamp(t *testing.T) {
	const account = "system:serviceaccount:agent-ceo:ceo"
	agent := podUser(account, []string{stampPod}, []string{stampUID})
	anybody := &authenticationv1.UserInfo{Username: "ann"}
	stamped := func(uid, pod string, others map[string]string) *metav1.ObjectMeta {
		o := &metav1.ObjectMeta{Labels: maps.Clone(others), Annotations: maps.Clone(others)}
		metav1.SetMetaDataLabel(o, lifecycle.LabelCreatedByPodUID, uid)
		metav1.SetMetaDataAnnotation(o, lifecycle.AnnotationCreatedByPod, pod)
		return o
	}
	team := map[string]string{"team": "blue"}
	plain := func(m map[string]string) *metav1.ObjectMeta {
		return &metav1.ObjectMeta{Labels: maps.Clone(m), Annotations: maps.Clone(m)}
	}
	none := map[string]string{}
	tests := []struct {
		name     string
		object   *metav1.ObjectMeta
		user     *authenticationv1.UserInfo
		want     *metav1.ObjectMeta
		patch    int
		patchHas string
	}{
		{"an agent's, with nothing", plain(nil), agent, stamped(stampUID, stampPod, nil), 2, `{"lifecycle.dexorder.io/created-by-pod-uid":"` + stampUID + `"}`},
		{"an agent's, with empty maps", plain(none), agent, stamped(stampUID, stampPod, nil), 2, `/metadata/labels/lifecycle.dexorder.io~1created-by-pod-uid`},
		{"an agent's, with others", plain(team), agent, stamped(stampUID, stampPod, team), 2, `/metadata/annotations/lifecycle.dexorder.io~1created-by-pod`},
		{"stamped already", stamped(stampUID, stampPod, team), agent, stamped(stampUID, stampPod, team), 0, ""},
		{"another UID", stamped("forged", stampPod, team), agent, stamped(stampUID, stampPod, team), 1, ""},
		{"another name", stamped(stampUID, "forged", team), agent, stamped(stampUID, stampPod, team), 1, ""},
		{"an empty stamp", stamped("", "", nil), agent, stamped(stampUID, stampPod, nil), 2, ""},
		{"anybody's", plain(team), anybody, plain(team), 0, ""},
		{"anybody's copy", stamped(stampUID, stampPod, team), anybody, plain(team), 2, `"remove"`},
		{"anybody's copy of nothing else", stamped(stampUID, stampPod, nil), anybody, plain(none), 2, `"remove"`},
		{"anybody's empty stamp", stamped("", "", team), anybody, plain(team), 2, `"remove"`},
		{"anybody's label", &metav1.ObjectMeta{Labels: map[string]string{lifecycle.LabelCreatedByPodUID: stampUID}}, anybody,
			&metav1.ObjectMeta{Labels: none}, 1, `"remove"`},
		{"no Pod", stamped(stampUID, stampPod, team), &authenticationv1.UserInfo{Username: account}, plain(team), 2, ""},
		{"no UID", stamped(stampUID, stampPod, team), podUser(account, []string{stampPod}, nil), plain(team), 2, ""},
		{"an empty UID", stamped(stampUID, stampPod, team), podUser(account, []string{stampPod}, []string{""}), plain(team), 2, ""},
		{"an empty name", stamped(stampUID, stampPod, team), podUser(account, []string{""}, []string{stampUID}), plain(team), 2, ""},
		{"two Pods", stamped(stampUID, stampPod, team), podUser(account, []string{stampPod, "b"}, []string{stampUID, "b"}), plain(team), 2, ""},
		{"a UID that no label can hold", plain(team), podUser(account, []string{stampPod}, []string{strings.Repeat("x", 64)}), plain(team), 0, ""},
		{"a Pod of another namespace", stamped(stampUID, stampPod, team),
			podUser("system:serviceaccount:cert-manager:cert-manager", []string{stampPod}, []string{stampUID}), plain(team), 2, ""},
		{"a Pod of a namespace that begins alike", plain(team),
			podUser("system:serviceaccount:agent-ceo-2:ceo", []string{stampPod}, []string{stampUID}), plain(team), 0, ""},
		{"a person with a Pod's extra", plain(team), podUser("agent-ceo", []string{stampPod}, []string{stampUID}), plain(team), 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := metadataOf(t, tt.object)
			patch := inject.Stamp(stampNamespace, tt.object, tt.user)
			if diff := cmp.Diff(tt.want, tt.object); diff != "" {
				t.Errorf("object (-want +got):\n%s", diff)
			}
			if got := patchedMetadata(t, before, patch); !sameKeys(got, tt.want) {
				t.Errorf("the patch makes %s, want %s", marshal(t, got), marshal(t, tt.want))
			}
			if has := string(marshal(t, patch)); len(patch) != tt.patch || !strings.Contains(has, tt.patchHas) {
				t.Errorf("patch %s, want %d operations and %q", has, tt.patch, tt.patchHas)
			}
			if again := inject.Stamp(stampNamespace, tt.object, tt.user); len(again) > 0 {
				t.Errorf("a second time it patches %s", marshal(t, again))
			}
		})
	}
}

// metadataOf is an object in JSON that tells null from empty.
func metadataOf(t *testing.T, o *metav1.ObjectMeta) []byte {
	t.Helper()
	return marshal(t, map[string]any{"metadata": map[string]any{"labels": o.Labels, "annotations": o.Annotations}})
}

func patchedMetadata(t *testing.T, object []byte, patch []jsonpatch.Operation) *metav1.ObjectMeta {
	t.Helper()
	var o struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
	}
	if err := json.Unmarshal(apply(t, object, patch), &o); err != nil {
		t.Fatal(err)
	}
	return &o.Metadata
}

// sameKeys compares what JSON tells of labels and annotations: absent and empty are one.
func sameKeys(a, b *metav1.ObjectMeta) bool {
	return maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Annotations, b.Annotations)
}

// FuzzStamp holds the stamp to its promises, whatever the object carries and whoever calls: a patch that applies, a stamp
// from a Pod of the namespace and from nobody else, and nothing else touched.
func FuzzStamp(f *testing.F) {
	const account = "system:serviceaccount:agent-ceo:ceo"
	f.Add([]byte(`{"labels":{"team":"blue"}}`), account, stampPod, stampUID)
	f.Add([]byte(`{"labels":null,"annotations":{}}`), account, stampPod, stampUID)
	f.Add([]byte(`{"labels":{"lifecycle.dexorder.io/created-by-pod-uid":"x"},"annotations":{"lifecycle.dexorder.io/created-by-pod":""}}`), account, stampPod, stampUID)
	f.Add([]byte(`{"annotations":{"lifecycle.dexorder.io/created-by-pod":"x"}}`), "ann", "", "")
	f.Add([]byte(`{}`), account, stampPod, "no label")
	f.Fuzz(func(t *testing.T, data []byte, username, pod, uid string) {
		var o metav1.ObjectMeta
		if json.Unmarshal(data, &o) != nil {
			return
		}
		before := metadataOf(t, &o)
		others := sansStamp(&o)
		user := podUser(username, []string{pod}, []string{uid})
		after := patchedMetadata(t, before, inject.Stamp(stampNamespace, &o, user))
		if !sameKeys(after, &o) {
			t.Errorf("the patch makes %s, the object is %s", marshal(t, after), marshal(t, &o))
		}
		if again := inject.Stamp(stampNamespace, &o, user); len(again) > 0 {
			t.Errorf("a second time it patches %s", marshal(t, again))
		}
		gotUID, hasUID := after.Labels[lifecycle.LabelCreatedByPodUID]
		gotPod, hasPod := after.Annotations[lifecycle.AnnotationCreatedByPod]
		switch {
		case hasUID != hasPod:
			t.Errorf("half a stamp: %s", marshal(t, after))
		case hasUID && (gotUID != uid || gotPod != pod || !strings.HasPrefix(username, "system:serviceaccount:agent-ceo:")):
			t.Errorf("%q with Pod %q, %q makes %s", username, pod, uid, marshal(t, after))
		}
		if !sameKeys(sansStamp(after), others) {
			t.Errorf("%s was made of %s", marshal(t, after), before)
		}
	})
}

// sansStamp is what there is beside a stamp.
func sansStamp(o *metav1.ObjectMeta) *metav1.ObjectMeta {
	rest := &metav1.ObjectMeta{Labels: maps.Clone(o.Labels), Annotations: maps.Clone(o.Annotations)}
	delete(rest.Labels, lifecycle.LabelCreatedByPodUID)
	delete(rest.Annotations, lifecycle.AnnotationCreatedByPod)
	return rest
}

package reaper

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// scanned returns the names that a scanner finds in a list of one object, and the object's own.
func scanned(t *testing.T, k *referrer, object string) (mentioned []string, name string) {
	t.Helper()
	found := map[string]bool{}
	s := scanner{within: k.within, annotationsOnly: !k.custom, name: func(n string) { name = n }, text: func(text string) {
		for _, n := range namesIn(text) {
			found[n] = true
		}
	}}
	meta, err := s.list(strings.NewReader(`{"kind":"List","metadata":{"resourceVersion":"7","continue":"more"},"items":[` + object + `]}`))
	if err != nil || meta.Continue != "more" {
		t.Fatalf("%s: %+v, %v", object, meta, err)
	}
	return slices.Sorted(maps.Keys(found)), name
}

func TestScanCustomObject(t *testing.T) {
	got, name := scanned(t, &referrer{custom: true}, `{"apiVersion":"x.io/v1","kind":"Thing","metadata":{"name":"own-name","namespace":"agent-x",
		"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"a\":\"applied\"}","note":"ns/annotated,and-another"},
		"managedFields":[{"manager":"by-somebody","fieldsV1":{"f:spec":{"k:{\"name\":\"managed\"}":{}}}}]},
		"spec":{"secretName":"plain","deep":[[{"any":{"ref":{"name":"deep"}}}]],"embedded":"{\"name\":\"in-json\"}","by":{"key-name":1,"fieldName":2},
		"number":7,"none":null,"yes":true,"CAPS":"Some-Thing."},"status":{"secret":"of-status"}}`)
	for _, want := range []string{"own-name", "ns", "annotated", "and-another", "plain", "deep", "in-json", "key-name", "of-status"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is not found; found are %v", want, got)
		}
	}
	for _, not := range []string{"applied", "managed", "by-somebody", "spec", "field", "number", "secret"} {
		if slices.Contains(got, not) {
			t.Errorf("%s is found, which nothing refers to", not)
		}
	}
	if name != "own-name" {
		t.Errorf("name %q", name)
	}
}

// Kubernetes' own kinds mention more than they refer to.
func TestScanOwnKinds(t *testing.T) {
	kind := func(all []referrer, resource string) *referrer {
		return &all[slices.IndexFunc(all, func(k referrer) bool { return k.resource == resource })]
	}
	for _, tc := range []struct {
		kind   *referrer
		object string
		want   []string
	}{
		{
			kind(namespacedReferrers, "ingresses"),
			`{"metadata":{"name":"web","labels":{"app":"web"},"annotations":{"nginx.ingress.kubernetes.io/auth-tls-secret":"agent-x/client-ca"}},` +
				`"spec":{"tls":[{"secretName":"web-tls"}]}}`,
			[]string{"agent-x", "client-ca", "nginx", "nginx.ingress", "nginx.ingress.kubernetes", "nginx.ingress.kubernetes.io", "auth-tls-secret", "web-tls"},
		},
		{kind(namespacedReferrers, "roles"), `{"metadata":{"name":"reads"},"rules":[{"resources":["secrets"],"resourceNames":["one"],"verbs":["get"]}]}`, []string{"one"}},
		{
			kind(namespacedReferrers, "podtemplates"),
			`{"metadata":{"name":"p"},"template":{"spec":{"containers":[{"name":"agent","envFrom":[{"configMapRef":{"name":"settings"}}]}],` +
				`"volumes":[{"name":"data","secret":{"secretName":"key"}}]}}}`,
			[]string{"key", "settings"},
		},
		{kind(namespacedReferrers, "services"), `{"metadata":{"name":"s","annotations":{"getambassador.io":"tls of my-tls"}}}`, []string{"getambassador", "getambassador.io", "my-tls", "of", "tls"}},
		{
			kind(namespacedReferrers, "resourceclaims"),
			`{"metadata":{"name":"c"},"spec":{"devices":{"config":[{"opaque":{"driver":"gpu","parameters":{"configMapName":"gpu-settings"}}}]}}}`,
			[]string{"gpu", "gpu-settings"},
		},
		{
			kind(namespacedReferrers, "services"),
			`{"metadata":{"name":"s","ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"anchor","uid":"a-1"}]}}`,
			[]string{"a-1", "anchor", "v1"},
		},
		{kind(clusterReferrers, "apiservices"), `{"metadata":{"name":"v1.x.io","annotations":{"ca":"ns/ca-secret"}}}`, []string{"ca-secret", "ns"}},
		{kind(clusterReferrers, "ingressclasses"), `{"metadata":{"name":"c"},"spec":{"parameters":{"kind":"ConfigMap","name":"of-class"}}}`, []string{"of-class"}},
		{kind(clusterReferrers, "validatingadmissionpolicybindings"), `{"metadata":{"name":"b"},"spec":{"policyName":"p","paramRef":{"name":"params"}}}`, []string{"p", "params"}},
		{
			kind(clusterReferrers, "storageclasses"),
			`{"metadata":{"name":"fast"},"provisioner":"x","parameters":{"csi.storage.k8s.io/node-stage-secret-name":"stage"}}`,
			[]string{"csi", "csi.storage", "csi.storage.k8s", "csi.storage.k8s.io", "node-stage-secret-name", "stage", "x"},
		},
		{
			kind(clusterReferrers, "persistentvolumes"),
			`{"metadata":{"name":"pvc-1","annotations":{"volume.kubernetes.io/provisioner-deletion-secret-name":"deletes","other":"not"}},` +
				`"spec":{"claimRef":{"name":"state"},"csi":{"driver":"d","nodeStageSecretRef":{"name":"stage","namespace":"ns"}}}}`,
			[]string{"deletes", "ns", "stage"},
		},
	} {
		got, _ := scanned(t, tc.kind, tc.object)
		slices.Sort(tc.want)
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: found %v, want %v", tc.kind.resource, got, tc.want)
		}
	}
}

// TestScanVolumesComplete goes through everything that a volume can say, as the API types have it.
func TestScanVolumesComplete(t *testing.T) {
	found := 0
	eachString(reflect.TypeFor[corev1.PersistentVolumeSpec](), nil, 0, func(path []step) {
		if referred(path) == "" {
			return
		}
		found++
		var spec corev1.PersistentVolumeSpec
		put(reflect.ValueOf(&spec).Elem(), path, "it")
		object, err := json.Marshal(corev1.PersistentVolume{Spec: spec})
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := scanned(t, &clusterReferrers[0], string(object)); !slices.Equal(got, []string{"it"}) {
			t.Errorf("%s: found %v in %s", pathOf(path), got, object)
		}
	})
	if found < 10 {
		t.Errorf("%d fields name a Secret; there are more", found)
	}
}

func TestScanBrokenAnswers(t *testing.T) {
	s := scanner{text: func(string) {}, name: func(string) {}}
	for _, answer := range []string{
		``, `[]`, `"text"`, `{}`, `{"metadata":{}}`, `{"metadata":{},"items":[`, `{"metadata":{},"items":[{"metadata":{"name":"a"}}`,
		`{"metadata":{},"items":{}}`, `{"metadata":{},"items":[7]}`, `{"metadata":{},"items":[{"metadata":7}]}`, `{"metadata":7,"items":[]}`,
	} {
		if _, err := s.list(strings.NewReader(answer)); err == nil {
			t.Errorf("%s is taken for a list", answer)
		}
	}
	for _, answer := range []string{`{"items":null,"metadata":{}}`, `{"items":[],"metadata":{"resourceVersion":"1"}}`} {
		if _, err := s.list(strings.NewReader(answer)); err != nil {
			t.Errorf("%s: %v", answer, err)
		}
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// models is how many namespaces of a fleet the API server is asked for.
const models = 4

// model is a namespace with what is in it, as the API server made it. Copies of it go to etcd directly, byte by byte what the API
// server would have stored: ten thousand namespaces are there in minutes.
type model struct {
	namespace *corev1.Namespace
	content   []stored
}

type stored struct {
	resource string
	object   runtime.Object
}

func (c *cluster) modelOf(ctx context.Context, name string) (*model, error) {
	ns, err := c.admin.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	m := &model{namespace: ns}
	for _, of := range []struct {
		resource string
		list     func() (runtime.Object, error)
	}{
		{"serviceaccounts", func() (runtime.Object, error) {
			return c.admin.CoreV1().ServiceAccounts(name).List(ctx, metav1.ListOptions{})
		}},
		{"configmaps", func() (runtime.Object, error) {
			return c.admin.CoreV1().ConfigMaps(name).List(ctx, metav1.ListOptions{})
		}},
		{"rolebindings", func() (runtime.Object, error) {
			return c.admin.RbacV1().RoleBindings(name).List(ctx, metav1.ListOptions{})
		}},
		{"persistentvolumeclaims", func() (runtime.Object, error) {
			return c.admin.CoreV1().PersistentVolumeClaims(name).List(ctx, metav1.ListOptions{})
		}},
		{"deployments", func() (runtime.Object, error) {
			return c.admin.AppsV1().Deployments(name).List(ctx, metav1.ListOptions{})
		}},
		{"replicasets", func() (runtime.Object, error) {
			return c.admin.AppsV1().ReplicaSets(name).List(ctx, metav1.ListOptions{})
		}},
		{"pods", func() (runtime.Object, error) { return c.admin.CoreV1().Pods(name).List(ctx, metav1.ListOptions{}) }},
	} {
		list, err := of.list()
		if err != nil {
			return nil, err
		}
		if err := meta.EachListItem(list, func(o runtime.Object) error {
			m.content = append(m.content, stored{of.resource, o.DeepCopyObject()})
			return nil
		}); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// copyOf stores a copy under another name. Each object gets a UID of its own, and owner references follow.
func (c *cluster) copyOf(ctx context.Context, m *model, name string) error {
	ns := m.namespace.DeepCopy()
	ns.Name, ns.UID, ns.ResourceVersion = name, uuid.NewUUID(), ""
	ns.Labels[corev1.LabelMetadataName], ns.Labels[lifecycle.LabelAgentRole] = name, name
	if err := c.store(ctx, "namespaces/"+name, ns); err != nil {
		return err
	}
	uids := map[types.UID]types.UID{}
	for _, s := range m.content {
		o := s.object.DeepCopyObject()
		of, err := meta.Accessor(o)
		if err != nil {
			return err
		}
		uid := uuid.NewUUID()
		uids[of.GetUID()] = uid
		of.SetNamespace(name)
		of.SetUID(uid)
		of.SetResourceVersion("")
		owners := of.GetOwnerReferences() // owners come before what they own
		for i := range owners {
			owners[i].UID = uids[owners[i].UID]
		}
		of.SetOwnerReferences(owners)
		if err := c.store(ctx, s.resource+"/"+name+"/"+of.GetName(), o); err != nil {
			return err
		}
	}
	return nil
}

var storage = protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)

// store writes an object to etcd, through the gateway that takes JSON.
func (c *cluster) store(ctx context.Context, key string, o runtime.Object) error {
	encoder := scheme.Codecs.EncoderForVersion(storage, schema.GroupVersions{corev1.SchemeGroupVersion, appsv1.SchemeGroupVersion, rbacv1.SchemeGroupVersion})
	value, err := runtime.Encode(encoder, o)
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string][]byte{"key": []byte("/registry/" + key), "value": value})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.EtcdURL()+"/v3/kv/put", bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := etcdClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("etcd: %s: %s", response.Status, answer)
	}
	return err
}

var etcdClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: fillers}}

package manifests

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// policySteps write the policy's ConfigMap, in place of the installed one, and others that are none of the server's business.
func policySteps() []step {
	const system = "dexorder-system"
	config := func(name string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{lifecycle.PolicyKey: "one"}}
	}
	update := func(what string, change func(*corev1.ConfigMap), want []string) step {
		return step{what, func(ctx context.Context, c kubernetes.Interface) error {
			o, err := c.CoreV1().ConfigMaps(system).Get(ctx, lifecycle.PolicyConfigMap, metav1.GetOptions{})
			if err != nil {
				return err
			}
			change(o)
			_, err = c.CoreV1().ConfigMaps(system).Update(ctx, o, metav1.UpdateOptions{})
			return err
		}, want}
	}
	judged := []string{"policy/2 UPDATE configmaps"}
	create := func(what, namespace, name string, want []string) step {
		return step{what, func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().ConfigMaps(namespace).Create(ctx, config(name), metav1.CreateOptions{})
			return err
		}, want}
	}
	return []step{
		{"delete", func(ctx context.Context, c kubernetes.Interface) error {
			return c.CoreV1().ConfigMaps(system).Delete(ctx, lifecycle.PolicyConfigMap, metav1.DeleteOptions{})
		}, nothing},
		create("create", system, lifecycle.PolicyConfigMap, []string{"policy/2 CREATE configmaps"}),
		update("put as it is", func(*corev1.ConfigMap) {}, nothing),
		update("label", func(o *corev1.ConfigMap) { metav1.SetMetaDataLabel(&o.ObjectMeta, "team", "blue") }, nothing),
		update("finalizer", func(o *corev1.ConfigMap) { o.Finalizers = []string{"example.com/one"} }, nothing),
		update("finalizer removed", func(o *corev1.ConfigMap) { o.Finalizers = nil }, nothing),
		update("file", func(o *corev1.ConfigMap) { o.Data[lifecycle.PolicyKey] = "two" }, judged),
		update("another file", func(o *corev1.ConfigMap) { o.Data["notes"] = "" }, nothing),
		update("file removed", func(o *corev1.ConfigMap) { delete(o.Data, lifecycle.PolicyKey) }, judged),
		update("every file removed", func(o *corev1.ConfigMap) { o.Data = nil }, nothing),
		update("file again", func(o *corev1.ConfigMap) { o.Data = config("").Data }, judged),
		create("another one", system, "another", nothing),
		create("of that name among agents", "dexorder-agents", lifecycle.PolicyConfigMap, nothing),
		create("of that name elsewhere", "default", lifecycle.PolicyConfigMap, nothing),
		{"all deleted", func(ctx context.Context, c kubernetes.Interface) error {
			return errors.Join(
				c.CoreV1().ConfigMaps(system).Delete(ctx, "another", metav1.DeleteOptions{}),
				c.CoreV1().ConfigMaps("dexorder-agents").Delete(ctx, lifecycle.PolicyConfigMap, metav1.DeleteOptions{}),
				c.CoreV1().ConfigMaps("default").Delete(ctx, lifecycle.PolicyConfigMap, metav1.DeleteOptions{}))
		}, nothing},
	}
}

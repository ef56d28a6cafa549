package manifests

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// testStampConditions shows whose ConfigMaps, Secrets and Jobs are sent to be stamped, or to lose a stamp.
func testStampConditions(cp *controlplane.ControlPlane, run func(string, kubernetes.Interface, []step)) {
	ceo := controlplane.ServiceAccount("agent-ceo", "ceo")
	const pod = "ceo-6d4b75cb6d-x2v9q"
	judged := []string{"validate CREATE jobs"}
	for _, test := range []struct {
		name      string
		as        rest.ImpersonationConfig
		namespace string
		change    func(*metav1.ObjectMeta)
		stamped   bool
		job       []string // what else is sent of a Job
	}{
		{"by an agent", boundTo(ceo, pod), "agent-ceo", nil, true, judged},
		{"by an agent, with a stamp", boundTo(ceo, pod), "agent-ceo", withStampLabel, true, judged},
		{"by an agent without a Pod", ceo, "agent-ceo", nil, false, judged},
		{"by a Pod of another namespace", boundTo(controlplane.ServiceAccount("cert-manager", "cert-manager"), pod), "agent-ceo", nil, false, judged},
		{"by a Pod of another namespace, with a stamp", boundTo(controlplane.ServiceAccount("cert-manager", "cert-manager"), pod), "agent-ceo", withStampLabel, true, judged},
		{"by a person", rest.ImpersonationConfig{UserName: "ann"}, "agent-ceo", nil, false, judged},
		{"by a person, with other keys", rest.ImpersonationConfig{UserName: "ann"}, "agent-ceo", withOtherKeys, false, judged},
		{"by a person, with the label", rest.ImpersonationConfig{UserName: "ann"}, "agent-ceo", withStampLabel, true, judged},
		{"by a person, with the annotation", rest.ImpersonationConfig{UserName: "ann"}, "agent-ceo", withStampAnnotation, true, judged},
		{"by the CronJob controller, with a stamp", controlplane.ServiceAccount("kube-system", "cronjob-controller"), "agent-ceo", withStampLabel, true, judged},
		{"by the namespace controller, with a stamp", controlplane.ServiceAccount("kube-system", "namespace-controller"), "agent-ceo", withStampLabel, false, nothing},
		{"among user agents", boundTo(controlplane.ServiceAccount("dexorder-agents", "agent-lifecycle"), pod), "dexorder-agents", withStampLabel, false, judged},
		{"elsewhere", boundTo(controlplane.ServiceAccount("not-agent-ceo", "ceo"), pod), "not-agent-ceo", withStampLabel, false, nothing},
	} {
		run("stamps "+test.name, impersonate(cp, test.as), stampSteps(test.namespace, test.change, test.stamped, test.job))
	}
}

func withStampLabel(o *metav1.ObjectMeta) {
	metav1.SetMetaDataLabel(o, lifecycle.LabelCreatedByPodUID, "uid")
}

func withStampAnnotation(o *metav1.ObjectMeta) {
	metav1.SetMetaDataAnnotation(o, lifecycle.AnnotationCreatedByPod, "pod")
}

func withOtherKeys(o *metav1.ObjectMeta) {
	metav1.SetMetaDataLabel(o, "team", "blue")
	metav1.SetMetaDataAnnotation(o, "team", "blue")
}

// stampSteps create one object of each kind that is stamped, and one that is not, and change and delete what they can. Who
// does it finds a clean slate afterwards.
func stampSteps(namespace string, change func(*metav1.ObjectMeta), stamped bool, judgedJob []string) []step {
	meta := func() metav1.ObjectMeta {
		o := metav1.ObjectMeta{Name: "stamps"}
		if change != nil {
			change(&o)
		}
		return o
	}
	sent := func(resource string) []string {
		if stamped {
			return []string{"stamp CREATE " + resource}
		}
		return nothing
	}
	return []step{
		{"ConfigMap", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().ConfigMaps(namespace).Create(ctx, &corev1.ConfigMap{ObjectMeta: meta()}, metav1.CreateOptions{})
			return err
		}, sent("configmaps")},
		{"ConfigMap changed and deleted", func(ctx context.Context, c kubernetes.Interface) error {
			configMap := &corev1.ConfigMap{ObjectMeta: meta(), Data: map[string]string{"changed": ""}}
			withStampLabel(&configMap.ObjectMeta)
			_, err := c.CoreV1().ConfigMaps(namespace).Update(ctx, configMap, metav1.UpdateOptions{})
			return errors.Join(err, c.CoreV1().ConfigMaps(namespace).Delete(ctx, "stamps", metav1.DeleteOptions{}))
		}, nothing},
		{"Secret", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Secrets(namespace).Create(ctx, &corev1.Secret{ObjectMeta: meta()}, dryRunCreate)
			return err
		}, sent("secrets")},
		{"Job", func(ctx context.Context, c kubernetes.Interface) error {
			job := newJob("stamps")
			job.ObjectMeta = meta()
			_, err := c.BatchV1().Jobs(namespace).Create(ctx, job, dryRunCreate)
			return err
		}, append(sent("jobs"), judgedJob...)},
		{"Service account", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta()}, dryRunCreate)
			return err
		}, nothing},
	}
}

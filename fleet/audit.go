package fleet

import (
	"context"
	"encoding/json"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/workload"
)

// audited are the kinds that are looked at. Of those that a controller usually makes only the rest is read in full.
var audited = []struct {
	apiResource
	mostlyControlled bool
}{
	{deployments, false},
	{apiResource{appsv1.SchemeGroupVersion.WithKind("StatefulSet"), "statefulsets"}, false},
	{apiResource{appsv1.SchemeGroupVersion.WithKind("DaemonSet"), "daemonsets"}, false},
	{apiResource{batchv1.SchemeGroupVersion.WithKind("CronJob"), "cronjobs"}, false},
	{apiResource{batchv1.SchemeGroupVersion.WithKind("Job"), "jobs"}, true},
	{apiResource{appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), "replicasets"}, true},
	{apiResource{corev1.SchemeGroupVersion.WithKind("ReplicationController"), "replicationcontrollers"}, true},
	{apiResource{corev1.SchemeGroupVersion.WithKind("Pod"), "pods"}, true},
}

// Audit judges what runs.
type Audit struct {
	Cluster *Cluster

	// By is what it is judged by.
	By *Judge

	// Today is what is in force, where By is not; nil otherwise. Reports then say what would be new.
	Today *Judge

	// PodSecurity are labels that namespaces will have after the installation, by name.
	PodSecurity map[string]map[string]string
}

// Run hands a Report of each workload that no other one controls in the covered namespaces to report, by namespace, kind and name. A
// namespace that is named is looked at alone. What runs to its end anyway is left out: finished Jobs and Pods.
func (a *Audit) Run(ctx context.Context, namespace string, report func(*Report) error) error {
	namespaces, err := a.Cluster.Namespaces(ctx, namespace, a.covers)
	if err != nil {
		return err
	}
	for _, n := range namespaces {
		if err := a.namespace(ctx, n, report); err != nil {
			return err
		}
	}
	return nil
}

func (a *Audit) covers(namespace string) bool {
	return a.By.Covers(namespace) || a.Today != nil && a.Today.Covers(namespace)
}

func (a *Audit) namespace(ctx context.Context, n Namespace, report func(*Report) error) error {
	var facts map[string]policy.Claim
	if a.By.NeedsClaims(n.Name) || a.Today != nil && a.Today.NeedsClaims(n.Name) {
		var err error
		if facts, err = a.Cluster.claimFacts(ctx, n.Name); err != nil {
			return err
		}
	}
	if labels, ok := a.PodSecurity[n.Name]; ok {
		n.Labels = labels
	}
	for _, kind := range audited {
		one := func(data []byte) error {
			r := a.judge(n, kind.apiResource, data, facts)
			if r == nil {
				return nil
			}
			return report(r)
		}
		each := a.Cluster.eachWhole
		if kind.mostlyControlled {
			each = a.Cluster.eachUncontrolled
		}
		if err := each(ctx, kind.apiResource, n.Name, one); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) eachWhole(ctx context.Context, r apiResource, namespace string, do func([]byte) error) error {
	return c.eachPage(ctx, r, namespace, "", wholeObjects, func(p *page) error {
		for _, item := range p.Items {
			if err := do(item); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *Cluster) eachUncontrolled(ctx context.Context, r apiResource, namespace string, do func([]byte) error) error {
	return c.eachMetadata(ctx, r, namespace, "", func(m *metav1.PartialObjectMetadata) error {
		if metav1.GetControllerOf(m) != nil {
			return nil
		}
		data, err := raw(c.client.CoreV1().RESTClient().Get().AbsPath(append(r.path(namespace), m.Name)...).
			SetHeader("Accept", wholeObjects).Do(ctx))
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case err != nil:
			return fmt.Errorf("get %s %q%s: %w", r.gvk.Kind, m.Name, inNamespace(namespace), err)
		}
		return do(data)
	})
}

// judge returns nil for what has finished.
func (a *Audit) judge(n Namespace, r apiResource, data []byte, facts map[string]policy.Claim) *Report {
	if finished(data) {
		return nil
	}
	o, err := workload.Decode(r.gvk, data)
	if err != nil {
		var h struct{ Metadata struct{ Name string } }
		_ = json.Unmarshal(data, &h) // a name makes the message better, no more
		return &Report{Kind: r.gvk.Kind, Namespace: n.Name, Name: h.Metadata.Name, NotUnderstood: err.Error()}
	}
	report := newReport(a.By, n, o, facts)
	if a.Today != nil {
		report.compare(newReport(a.Today, n, o, facts))
	}
	return report
}

// finished says whether a Job or a Pod has run to its end.
func finished(data []byte) bool {
	var o struct {
		Status struct {
			Phase          corev1.PodPhase `json:"phase"`
			CompletionTime *metav1.Time    `json:"completionTime"`
			Conditions     []struct {
				Type   string `json:"type"`
				Status string `json:"status"`
			} `json:"conditions"`
		} `json:"status"`
	}
	if err := json.Unmarshal(data, &o); err != nil {
		return false
	}
	for _, c := range o.Status.Conditions {
		if c.Type == string(batchv1.JobFailed) && c.Status == string(corev1.ConditionTrue) {
			return true
		}
	}
	return o.Status.CompletionTime != nil || o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed
}

package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/workload"
)

type auditedKind struct {
	apiResource
	mostlyControlled bool
}

// audited are the kinds that are looked at. Of those that a controller usually makes only the rest is read in full.
var audited = []auditedKind{
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

// Run hands a Report of each workload that no other one controls in the covered namespaces to report, by kind, namespace and name, and
// then one of each workload in the templates of the gateway and of roles. A namespace that is named is looked at alone. What ends anyway is left out: what is deleted, and finished Jobs and Pods.
func (a *Audit) Run(ctx context.Context, namespace string, report func(*Report) error) error {
	namespaces, err := a.Cluster.Namespaces(ctx, namespace, a.covers)
	if err != nil {
		return err
	}
	for name, n := range namespaces {
		if labels, ok := a.PodSecurity[name]; ok {
			n.Labels = labels
			namespaces[name] = n
		}
	}
	facts := map[string]map[string]policy.Claim{} // by namespace
	for _, kind := range audited {
		one := func(data []byte) error {
			var h header
			if err := json.Unmarshal(data, &h); err != nil {
				return fmt.Errorf("list %s%s: %w", kind.plural, inNamespace(namespace), err)
			}
			n, ok := namespaces[h.Metadata.Namespace]
			if !ok || h.ends() {
				return nil
			}
			if _, ok := facts[n.Name]; !ok && a.needsClaims(n.Name) {
				if facts[n.Name], err = a.Cluster.claimFacts(ctx, n.Name); err != nil {
					return err
				}
			}
			return report(a.judge(n, kind.apiResource, h.Metadata.Name, data, facts[n.Name]))
		}
		if kind.mostlyControlled {
			err = a.Cluster.eachUncontrolled(ctx, kind.apiResource, namespace, namespaces, one)
		} else {
			err = a.Cluster.eachWhole(ctx, kind.apiResource, namespace, one)
		}
		if err != nil {
			return err
		}
	}
	return a.auditTemplates(ctx, namespace, report)
}

func (a *Audit) covers(namespace string) bool {
	return a.By.Covers(namespace) || a.Today != nil && a.Today.Covers(namespace)
}

func (a *Audit) needsClaims(namespace string) bool {
	return a.By.NeedsClaims(namespace) || a.Today != nil && a.Today.NeedsClaims(namespace)
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

// eachUncontrolled reads in full what nothing controls that is looked at itself. What other controllers make, such as those of workflows,
// counts as uncontrolled: no rule knows its controller.
func (c *Cluster) eachUncontrolled(ctx context.Context, r apiResource, namespace string, covered map[string]Namespace, do func([]byte) error) error {
	return c.eachMetadata(ctx, r, namespace, "", func(m *metav1.PartialObjectMetadata) error {
		if _, ok := covered[m.Namespace]; !ok || m.DeletionTimestamp != nil || isAudited(metav1.GetControllerOf(m)) {
			return nil
		}
		var data []byte
		err := patiently(ctx, func(ctx context.Context) (err error) {
			data, err = raw(c.client.CoreV1().RESTClient().Get().AbsPath(append(r.path(m.Namespace), m.Name)...).SetHeader("Accept", wholeObjects).Do(ctx))
			return err
		})
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case err != nil:
			return fmt.Errorf("get %s %q%s: %w", r.gvk.Kind, m.Name, inNamespace(m.Namespace), err)
		}
		return do(data)
	})
}

func isAudited(controller *metav1.OwnerReference) bool {
	if controller == nil {
		return false
	}
	gv, err := schema.ParseGroupVersion(controller.APIVersion)
	return err == nil && slices.ContainsFunc(audited, func(k auditedKind) bool { return k.gvk.Group == gv.Group && k.gvk.Kind == controller.Kind })
}

func (a *Audit) judge(n Namespace, r apiResource, name string, data []byte, facts map[string]policy.Claim) *Report {
	o, err := workload.Decode(r.gvk, data)
	if err != nil {
		return &Report{Kind: r.gvk.Kind, Namespace: n.Name, Name: name, NotUnderstood: err.Error()}
	}
	report := newReport(a.By, n, o, facts)
	if a.Today != nil {
		report.compare(newReport(a.Today, n, o, facts))
	}
	return report
}

// header is what any kind has, as far as it matters here.
type header struct {
	Metadata struct {
		Name              string       `json:"name"`
		Namespace         string       `json:"namespace"`
		DeletionTimestamp *metav1.Time `json:"deletionTimestamp"`
	} `json:"metadata"`
	Status struct {
		Phase          corev1.PodPhase `json:"phase"`
		CompletionTime *metav1.Time    `json:"completionTime"`
		Conditions     []struct {
			Type   string `json:"type"`
			Status string `json:"status"`
		} `json:"conditions"`
	} `json:"status"`
}

// ends says whether something is being deleted, or is a Job or a Pod that has run to its end.
func (h *header) ends() bool {
	for _, c := range h.Status.Conditions {
		if c.Type == string(batchv1.JobFailed) && c.Status == string(corev1.ConditionTrue) {
			return true
		}
	}
	return h.Metadata.DeletionTimestamp != nil || h.Status.CompletionTime != nil ||
		h.Status.Phase == corev1.PodSucceeded || h.Status.Phase == corev1.PodFailed
}

package reaper

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// pruneTemplates deletes the templates that provisioning left and that no namespace is compared with any more, when a namespace has gone
// and at the start: it may have gone while nobody looked. A template that somebody else wrote, maybe for namespaces to come, stays.
// Provisioning again writes it again.
func (w *worker) pruneTemplates(ctx context.Context) error {
	if !w.mayWrite() || w.mode(w.settings().Namespaces.Mode) != v1alpha1.ReaperDelete || !w.takePruning() {
		return nil
	}
	err := w.pruneOrphans(ctx)
	if err != nil {
		w.pruneSoon()
	}
	return err
}

func (w *worker) pruneOrphans(ctx context.Context) error {
	templates, err := w.templates(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, ofRole := range templates {
		for i := range ofRole {
			t := &ofRole[i]
			if !provisioned(t) {
				continue
			}
			if err := w.pruneOrphan(ctx, t); err != nil {
				errs = append(errs, fmt.Errorf("template %s: %w", t.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// provisioned says whether a template is as provisioning leaves it, by its name and by who wrote it.
func provisioned(t *corev1.ConfigMap) bool {
	role, org, environment := t.Labels[lifecycle.LabelRoleTemplate], t.Labels[lifecycle.LabelOrg], t.Labels[lifecycle.LabelEnvironment]
	return role != "" && org != "" && environment != "" && t.Name == lifecycle.ProvisionedTemplateName(role, org, environment) &&
		slices.ContainsFunc(t.ManagedFields, func(m metav1.ManagedFieldsEntry) bool {
			return m.Manager == lifecycle.FieldManagerProvision && m.Operation == metav1.ManagedFieldsOperationApply
		})
}

// pruneOrphan deletes a template if the API server knows of no namespace that it is for. Provisioning makes the namespace first.
func (w *worker) pruneOrphan(ctx context.Context, t *corev1.ConfigMap) error {
	selector := labels.Set{
		lifecycle.LabelAgentRole: t.Labels[lifecycle.LabelRoleTemplate], lifecycle.LabelOrg: t.Labels[lifecycle.LabelOrg],
		lifecycle.LabelEnvironment: t.Labels[lifecycle.LabelEnvironment],
	}.AsSelector().String()
	list, err := w.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: selector, Limit: 1})
	if err == nil {
		err = whole(list)
	}
	if err != nil || len(list.Items) > 0 {
		return err
	}
	err = w.client.CoreV1().ConfigMaps(w.Namespace).Delete(ctx, t.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &t.UID, ResourceVersion: &t.ResourceVersion},
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	if err == nil {
		w.Logger.InfoContext(ctx, "Deleted the template of a role that has no namespace any more", "template", t.Name,
			"role", t.Labels[lifecycle.LabelRoleTemplate])
	}
	return err
}

// pruneSoon has the next pass look for templates that no namespace needs.
func (w *worker) pruneSoon() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.prune = true
}

func (w *worker) takePruning() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	prune := w.prune
	w.prune = false
	return prune
}

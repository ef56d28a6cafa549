package reaper

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// markKey tells one marking of a namespace from every other one. It is "" for a namespace that is not known or not
// marked.
func markKey(n *namespace) string {
	if n == nil || n.annotations[lifecycle.AnnotationReaping] == "" {
		return ""
	}
	return string(n.uid) + "/" + n.annotations[lifecycle.AnnotationReaping]
}

// save keeps what is in a namespace, if the policy retains that. Until it has returned nil nothing may be deleted
// there. Every step calls it anew: a claim may have got its volume since.
func (d *dismantler) save(ctx context.Context, n *namespace, full *corev1.Namespace) error {
	keep := d.settings().Namespaces
	if keep.Retain.Duration <= 0 {
		return nil
	}
	if err := d.Archiver.Save(ctx, full, keep.Retain.Duration, keep.RetainSecrets); err != nil {
		return fmt.Errorf("keep what is in it: %w", err)
	}
	d.approval.Lock()
	d.saved[n.name] = markKey(n)
	d.approval.Unlock()
	return nil
}

// isSaved says whether a namespace is kept as it is marked now, or need not be. As long as it is not, nobody may wait
// for what is on its way out there: with a claim that a user deletes goes the volume that was to be kept.
func (d *dismantler) isSaved(name string) bool {
	if d.settings().Namespaces.Retain.Duration <= 0 {
		return true
	}
	key := ""
	d.inventory.look(name, func(p *place) { key = markKey(p.namespace) })
	d.approval.Lock()
	defer d.approval.Unlock()
	return key != "" && d.saved[name] == key
}

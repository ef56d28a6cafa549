package reaper

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

func (r *previewing) leftovers(ctx context.Context) ([]*Change, error) {
	then, today := r.ours(r.Then), map[string]bool{}
	if r.Today != nil {
		today = r.ours(r.Today)
	}
	references := &referenceReader{client: r.client}
	var all []*Change
	var unread []string
	for _, name := range r.inventory.names() {
		if !then[name] && !today[name] || r.inventory.facts(name).namespace.deleting {
			continue
		}
		found, why, err := r.leftoversIn(ctx, name, references, func(policy *v1alpha1.LifecyclePolicy) bool {
			return policy == r.Then && then[name] || policy == r.Today && today[name]
		})
		switch {
		case err != nil:
			return nil, fmt.Errorf("leftovers of namespace %s: %w", name, err)
		case why != "":
			unread = append(unread, name+" ("+why+")")
		default:
			all = append(all, found...)
		}
	}
	if len(unread) > 0 {
		const shown = 3
		list := strings.Join(unread[:min(shown, len(unread))], "; ")
		if more := len(unread) - shown; more > 0 {
			list += fmt.Sprintf("; and %d more", more)
		}
		r.changes.NotRead = append(r.changes.NotRead, fmt.Sprintf("leftovers of %d namespaces: %s", len(unread), list))
	}
	// A pass may look at fewer namespaces than all, and then finds less at once.
	r.applyCaps(all, func(policy *v1alpha1.LifecyclePolicy) int { return int(policy.Reaper.Cap.Count) })
	return all, nil
}

// leftoversIn compares those of one namespace. unread says what of it the caller may not read.
func (r *previewing) leftoversIn(
	ctx context.Context, namespace string, references *referenceReader, ours func(*v1alpha1.LifecyclePolicy) bool,
) (all []*Change, unread string, err error) {
	stamped, err := listStamped(ctx, r.client, namespace)
	if err != nil || len(stamped) == 0 {
		return nil, forbidden(err), unlessForbidden(err)
	}
	around, err := readSurroundings(ctx, r.client, namespace)
	if err != nil {
		return nil, forbidden(err), unlessForbidden(err)
	}
	compare := func() (goes bool) {
		all = nil
		for _, f := range stamped {
			c := r.change(f.leftover.kind, &f.object, func(policy *v1alpha1.LifecyclePolicy) Outlook {
				if !ours(policy) {
					return Outlook{Reason: "its namespace is not the reaper's"}
				}
				return leftoverOutlook(f.leftover, around, policy, r.Now)
			})
			all = append(all, c)
			goes = goes || f.leftover.kind != "Job" && !(c.Today.At.IsZero() && c.Then.At.IsZero())
		}
		return goes
	}
	if compare() { // else nothing that refers to one would make a difference
		if around.mentions = references.read(ctx, namespace, namesOf(stamped)); around.mentions.unknown != "" {
			return nil, around.mentions.unknown, nil
		}
		compare()
	}
	return all, "", nil
}

// forbidden is the error's text if the caller lacks a right; else empty.
func forbidden(err error) string {
	if apierrors.IsForbidden(err) {
		return err.Error()
	}
	return ""
}

// unlessForbidden is the error, unless the caller lacks a right.
func unlessForbidden(err error) error {
	if apierrors.IsForbidden(err) {
		return nil
	}
	return err
}

package reaper

import (
	"cmp"
	"slices"
)

// News is a difference between what the reaper does by two policies.
type News string

// The values of News.
const (
	NewlyReaped    News = "newly deleted by the reaper"
	NoLongerReaped News = "no longer deleted by the reaper"
	ReapedEarlier  News = "deleted earlier by the reaper"
	ReapedLater    News = "deleted later by the reaper"

	// NewlyHeld is news of an object that would be deleted if the cap allowed so much.
	NewlyHeld News = "newly to be deleted by the reaper, and held by its cap"

	// KeptLess: the content of a deleted namespace is kept for a shorter time, or without the values of its Secrets.
	KeptLess News = "kept for less after its deletion"
	KeptMore News = "kept for more after its deletion"
)

// Change is an object to which the reaper does something else by another policy than by the one in force.
type Change struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`

	// News says what differs.
	News []News `json:"news"`

	// Today is what the reaper does by the policy in force, Then what it does by the other one.
	Today Outlook `json:"today"`
	Then  Outlook `json:"then"`
}

// compare fills in News.
func (c *Change) compare() {
	today, then := &c.Today, &c.Then
	c.News = nil
	add := func(is bool, news News) {
		if is {
			c.News = append(c.News, news)
		}
	}
	add(then.reaped() && !today.reaped(), NewlyReaped)
	add(today.reaped() && !then.reaped(), NoLongerReaped)
	add(then.CapExceeded && today.At.IsZero(), NewlyHeld)
	if !today.reaped() || !then.reaped() {
		return
	}
	add(then.At.Before(today.At), ReapedEarlier)
	add(then.At.After(today.At), ReapedLater)
	retain, secrets := cmp.Compare(then.Retain.Duration, today.Retain.Duration), then.RetainSecrets != today.RetainSecrets
	add(retain < 0 || secrets && today.RetainSecrets, KeptLess)
	add(retain > 0 || secrets && then.RetainSecrets, KeptMore)
}

// changed compares, and returns what differs, by namespace and name.
func changed(all []*Change) []*Change {
	var found []*Change
	for _, c := range all {
		c.compare()
		if len(c.News) > 0 {
			found = append(found, c)
		}
	}
	slices.SortFunc(found, func(a, b *Change) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return found
}

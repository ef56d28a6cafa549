package idle

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Owner is one of those that hold triggers and leases: a process, a script, a part of the agent. No call of an owner changes
// what another one holds, also where both use the same id.
type Owner struct {
	manager *Manager
	name    string
}

// Owner returns the owner of that name. The empty name is the owner of all that name none; the methods of Manager act for it.
// A name that no id could be is refused by the owner's methods. What an owner holds stays until it is removed or runs out,
// however the process that set it ended.
func (m *Manager) Owner(name string) *Owner { return &Owner{m, name} }

// keepKey names a trigger or a lease.
type keepKey struct{ owner, id string }

// compareKeys orders by id, and by owner where the ids are the same.
func compareKeys(a, b keepKey) int {
	if c := strings.Compare(a.id, b.id); c != 0 {
		return c
	}
	return strings.Compare(a.owner, b.owner)
}

// AddTrigger keeps the agent alive until the trigger is removed. Adding it again changes the reason, of which 1024 bytes
// are kept.
func (o *Owner) AddTrigger(id, reason string) error {
	if err := o.check(id); err != nil {
		return err
	}
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "") + "…"
	}
	return o.manager.change(func(now time.Time) error {
		return o.manager.keep(keepKey{o.name, id}, keep{since: now, reason: reason}, now)
	})
}

// Lease keeps the agent alive for a time, in which it can be renewed by the same id. It returns when it ends.
func (o *Owner) Lease(id string, ttl time.Duration) (time.Time, error) {
	if err := o.check(id); err != nil {
		return time.Time{}, err
	}
	if ttl < minLease || ttl > maxLease {
		return time.Time{}, &InvalidError{"ttl", ttl.String(), fmt.Sprintf("%s to %s", minLease, maxLease)}
	}
	var until time.Time
	err := o.manager.change(func(now time.Time) error {
		until = now.Add(ttl)
		return o.manager.keep(keepKey{o.name, id}, keep{since: now, until: until}, now)
	})
	return until, err
}

// RemoveTrigger lets a trigger or a lease go. The timeout begins anew with the end of the last one. One that is not there is
// no error.
func (o *Owner) RemoveTrigger(id string) error {
	if err := o.check(); err != nil {
		return err
	}
	return o.manager.change(func(now time.Time) error {
		if key := (keepKey{o.name, id}); o.manager.holds(key) {
			delete(o.manager.keeps, key)
			o.manager.alive(now)
		}
		return nil
	})
}

// UpdateTriggers makes these the owner's triggers, and no others. Its leases stay.
func (o *Owner) UpdateTriggers(ids ...string) error {
	if err := o.check(ids...); err != nil {
		return err
	}
	return o.manager.change(func(now time.Time) error {
		others := 0
		for key, k := range o.manager.keeps {
			if (key.owner != o.name || !k.until.IsZero()) && !(key.owner == o.name && slices.Contains(ids, key.id)) {
				others++
			}
		}
		if len(ids)+others > maxKeeps {
			return ErrTooMany // before anything is taken away
		}
		removed := false
		for key, k := range o.manager.keeps {
			if key.owner == o.name && k.until.IsZero() && !slices.Contains(ids, key.id) {
				delete(o.manager.keeps, key)
				removed = true
			}
		}
		for _, id := range ids {
			if err := o.manager.keep(keepKey{o.name, id}, keep{since: now}, now); err != nil {
				return err
			}
		}
		if removed {
			o.manager.alive(now)
		}
		return nil
	})
}

// check holds the owner's name and the ids to what is accepted.
func (o *Owner) check(ids ...string) error {
	if o.name != "" {
		if err := checkName("owner", o.name); err != nil {
			return err
		}
	}
	for _, id := range ids {
		if err := checkName("id", id); err != nil {
			return err
		}
	}
	return nil
}

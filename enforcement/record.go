package enforcement

import (
	"maps"
	"time"
)

const (
	// settleTime is how long after it was noticed a rule is in force: by then every replica has the policy file of today,
	// and no older server answers any more, so that what is stored was judged by the rule.
	settleTime = 5 * time.Minute

	// warnTime is how long rules only warn that older servers may not know. It ends before settleTime, so that whatever
	// was let pass is older than the rule, also where the replicas' clocks differ by up to a minute.
	warnTime = 4 * time.Minute

	// heartbeatInterval is how often the servers say that they enforce the rules: one write for all of them.
	heartbeatInterval = time.Minute

	// interruption is how long there may be no heartbeat before enforcement counts as interrupted, as by servers of an
	// older version after a rollback, which leave the record alone. It is shorter than warnTime, so that a server which was
	// away during a rollout finds either that time running or enforcement interrupted.
	interruption = 3 * time.Minute
)

// firstRevision of the rules is all that servers know which keep no record: those of release v0.1.0.
const firstRevision int32 = 1

// Key names a rule of a profile.
type Key struct{ Profile, Rule string }

// Record says since when rules are enforced. The zero Record is one that no server has written yet.
type Record struct {
	// Revision of the rules that the servers know which keep the record. 0: nothing is recorded.
	Revision int32

	// Seen is the last heartbeat.
	Seen time.Time

	// Since holds an entry for every rule that is enforced: when that began. The zero time stands for always.
	Since map[Key]time.Time

	// Rules of a later revision than WarnAbove refuse nothing until WarnUntil, but warn: servers may answer until then
	// that do not know these rules and do not inject what they ask for. Zero: there are none.
	WarnAbove int32
	WarnUntil time.Time
}

// Rule is a rule that the policy in force enforces.
type Rule struct {
	Key

	// Revision in which the rule was added.
	Revision int32
}

// Situation is what Next decides by.
type Situation struct {
	Now time.Time

	// Rules that the policy in force enforces, of all profiles.
	Rules []Rule

	// Revision is the newest of the rules that this server knows.
	Revision int32

	// Fresh says that the system was installed just now, so that no older server answers.
	Fresh bool

	// RollingOut says that Pods of another version of the server may still answer.
	RollingOut bool
}

// Next returns what becomes of a record, and whether that has to be written.
//
// A rule that the record does not hold is in force from settleTime on; one that is no longer enforced is taken out. Rules
// of the first revision have always been in force when the first record is made, as they were without one.
//
// Where servers of an older version may have answered, or still do, the rules that they do not know begin anew: after an
// upgrade, and after a time without heartbeats.
func Next(stored Record, s Situation) (next Record, changed bool) {
	if stored.Revision > s.Revision && !stored.interrupted(s.Now) {
		return stored, false // Newer servers keep the record, and know rules that this one does not.
	}
	now := s.Now.UTC().Truncate(time.Second) // as precise as creationTimestamp, which it is compared with
	first := stored.Revision == 0
	next = stored
	next.Revision, next.Since = s.Revision, make(map[Key]time.Time, len(s.Rules))
	known := stored.knownToAll(s)
	if known < s.Revision {
		next.WarnAbove, next.WarnUntil = known, now.Add(warnTime)
	}
	for _, rule := range s.Rules {
		since, recorded := stored.Since[rule.Key]
		switch {
		case rule.Revision > known, !recorded && !first:
			since = now.Add(settleTime)
		case first && rule.Revision > firstRevision: // on a fresh installation: agents that were there before are older
			since = now
		}
		next.Since[rule.Key] = since
	}
	if next.WarnAbove >= s.Revision || !now.Before(next.WarnUntil) {
		next.WarnAbove, next.WarnUntil = 0, time.Time{}
	}
	beat := now.Sub(stored.Seen)
	changed = first || next.Revision != stored.Revision || !maps.EqualFunc(next.Since, stored.Since, time.Time.Equal) ||
		next.WarnAbove != stored.WarnAbove || !next.WarnUntil.Equal(stored.WarnUntil) ||
		beat >= heartbeatInterval || beat <= -heartbeatInterval
	if changed {
		next.Seen = now
	}
	return next, changed
}

// knownToAll is the revision of the rules that every server knows which may have answered lately or still does.
func (r *Record) knownToAll(s Situation) int32 {
	switch {
	case r.Revision == 0 && s.Fresh:
		return s.Revision
	case r.Revision == 0, r.interrupted(s.Now):
		return firstRevision
	case r.Revision < s.Revision:
		return r.Revision
	case s.RollingOut && s.Now.Before(r.WarnUntil) && r.WarnUntil.Sub(s.Now) <= warnTime-heartbeatInterval:
		return r.WarnAbove // the older servers are not gone yet: their time is extended
	}
	return s.Revision
}

// interrupted says whether nobody has kept the record for a while.
func (r *Record) interrupted(now time.Time) bool { return now.Sub(r.Seen) > interruption }

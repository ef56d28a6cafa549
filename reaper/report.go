package reaper

import (
	"errors"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// Report is what one pass decided and did.
type Report struct {
	Reapers []Result `json:"reapers"`
}

// Result is what one reaper decided and did in a pass.
type Result struct {
	// Reaper is its name: namespaces, agents, claims, leftovers or drift.
	Reaper string `json:"reaper"`

	// Mode is the one that was in force: Delete, DryRun or Off; Report or Off of drift.
	Mode string `json:"mode"`

	// Examined is how much of its kind there is. Candidates is how much of that it decided to mark or delete.
	Examined   int `json:"examined"`
	Candidates int `json:"candidates"`

	// Reaped is what it deleted.
	Reaped int `json:"reaped"`

	// Kept counts the rest by reason.
	Kept map[string]int `json:"kept,omitempty"`

	// CapExceeded says that there were more candidates than Cap, so that nothing was deleted.
	CapExceeded bool `json:"capExceeded,omitempty"`
	Cap         int  `json:"cap"`

	// Error is why the pass failed, if it did.
	Error string `json:"error,omitempty"`

	// Decisions lists what is not simply kept.
	Decisions []Decision `json:"decisions,omitempty"`
}

// Decision is what became of one object, and why.
type Decision struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`

	// Verdict is a phase for Namespaces; for others "deleted", "would delete" or "kept".
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`

	uid types.UID
}

// Failed says whether any reaper could not do its work.
func (r *Report) Failed() bool {
	for i := range r.Reapers {
		if r.Reapers[i].Error != "" {
			return true
		}
	}
	return false
}

// CapExceeded says whether any reaper stopped because there was too much.
func (r *Report) CapExceeded() bool {
	for i := range r.Reapers {
		if r.Reapers[i].CapExceeded {
			return true
		}
	}
	return false
}

// of returns what one reaper did. There is one of each.
func (r *Report) of(reaper string) *Result {
	return &r.Reapers[slices.IndexFunc(r.Reapers, func(r Result) bool { return r.Reaper == reaper })]
}

// fail adds to what went wrong, if anything did.
func (r *Result) fail(err error) {
	r.Error = message(errors.Join(wrong(r.Error), err))
}

func (r *Result) keep(reason string) {
	if r.Kept == nil {
		r.Kept = map[string]int{}
	}
	r.Kept[reason]++
}

// keptBefore returns reasons that no longer hold, so that their metrics go to 0.
func (r *Result) keptBefore(before map[string]int) []string {
	gone := maps.Clone(before)
	for reason := range r.Kept {
		delete(gone, reason)
	}
	reasons := make([]string, 0, len(gone))
	for reason := range gone {
		reasons = append(reasons, reason)
	}
	return reasons
}

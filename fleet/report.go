package fleet

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/inject"
	"github.com/dexorder/agent-lifecycle/internal/terminal"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/workload"
)

// Report is what a policy makes of one workload.
type Report struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`

	// Template says which template the workload stands in; empty for one that is stored itself. Refused is then what would be refused
	// of its creation.
	Template string `json:"template,omitempty"`

	// NotRead says why templates were not looked at. That is no mistake of theirs.
	NotRead string `json:"notRead,omitempty"`

	// NotUnderstood says why it could not be judged; nothing else is said then.
	NotUnderstood string `json:"notUnderstood,omitempty"`

	// Refused is what would be refused of the next change of its template, or of its creation where it is no Deployment. Warned is what
	// would only be warned about, and Audited what would only be counted.
	Refused []policy.Violation `json:"refused,omitempty"`
	Warned  []policy.Violation `json:"warned,omitempty"`
	Audited []policy.Violation `json:"audited,omitempty"`

	// Stuck is why its next Pod would not come up.
	Stuck []policy.Violation `json:"stuck,omitempty"`

	// Adopted says whether a Deployment was admitted by the system. Sidecar and SidecarImage are a Deployment's.
	Adopted      bool    `json:"adopted,omitempty"`
	Sidecar      Sidecar `json:"sidecar,omitempty"`
	SidecarImage string  `json:"sidecarImage,omitempty"`

	// TakesUnsigned says that an agent which was admitted does not know the gateway's key: anybody in the Pod network can keep it
	// awake.
	TakesUnsigned bool `json:"takesUnsignedActivity,omitempty"`

	// News is what a preview is about; empty where nothing changes, or nothing is previewed.
	News []News `json:"news,omitempty"`
}

// News is a difference between two policies.
type News string

// The values of News.
const (
	NewlyRefused  News = "newly refused"
	RefusedMore   News = "refused for more"
	NewlyAccepted News = "newly accepted"
	NewlyWarned   News = "newly warned about"
	NewlyStuck    News = "its next Pod would newly not come up"
	NewlyFree     News = "its next Pod would come up again"

	// NewlyOutdated counts, and is no news of its own: a new sidecar's image is news of every agent.
	NewlyOutdated News = "newly not up to date"
)

func newReport(j *Judge, n Namespace, o *workload.Object, claims map[string]policy.Claim) *Report {
	r := &Report{Kind: o.Kind, Namespace: n.Name, Name: o.Meta.Name}
	change := j.Change(n.Name, o, claims)
	r.Refused, r.Warned, r.Audited = change.Denials, change.Warnings, change.Audits
	if chain := chainOf(o.Kind); chain != nil && (o.Replicas == nil || *o.Replicas > 0) {
		var owner metav1.Object = o.Meta
		if o.Deployment != nil {
			owner = o.Deployment
		}
		r.Stuck = j.Return(n.Name, n.Labels, o, owner, chain, claims).Denials
	}
	if o.Deployment != nil && j.Covers(n.Name) {
		r.Adopted = Adopted(o.Deployment)
		r.Sidecar, r.SidecarImage = j.SidecarOf(n.Name, o.Deployment)
		r.TakesUnsigned = r.Adopted && !inject.HasActivityKey(o.Deployment)
	}
	return r
}

// compare fills in News.
func (r *Report) compare(today *Report) {
	add := func(is bool, news News) {
		if is {
			r.News = append(r.News, news)
		}
	}
	add(len(r.Refused) > 0 && len(today.Refused) == 0, NewlyRefused)
	add(len(today.Refused) > 0 && hasMore(r.Refused, today.Refused), RefusedMore)
	add(len(r.Refused) == 0 && len(today.Refused) > 0, NewlyAccepted)
	add(hasMore(r.Warned, slices.Concat(today.Warned, today.Refused)), NewlyWarned)
	add(len(r.Stuck) > 0 && len(today.Stuck) == 0, NewlyStuck)
	add(len(r.Stuck) == 0 && len(today.Stuck) > 0, NewlyFree)
	add(r.Adopted && r.Sidecar != SidecarCurrent && today.Sidecar == SidecarCurrent, NewlyOutdated)
}

// hasMore says whether a rule objects to a field that it did not object to before. What it says of it may well have changed.
func hasMore(now, before []policy.Violation) bool {
	return slices.ContainsFunc(now, func(v policy.Violation) bool {
		return !slices.ContainsFunc(before, func(w policy.Violation) bool { return v.Rule == w.Rule && v.Field == w.Field })
	})
}

// Summary counts reports.
type Summary struct {
	Workloads     int `json:"workloads"`
	Templates     int `json:"templates,omitempty"` // counted in what follows as well
	Refused       int `json:"refused"`
	Warned        int `json:"warned"`
	Stuck         int `json:"stuck"`
	NotAdopted    int `json:"notAdopted"`
	NoSidecar     int `json:"withoutSidecar"`
	Outdated      int `json:"withOutdatedSidecar"`
	NotUnderstood int `json:"notUnderstood"`
	TakesUnsigned int `json:"takesUnsignedActivity,omitempty"`

	// Of a preview.
	NewlyRefused  int `json:"newlyRefused,omitempty"`
	RefusedMore   int `json:"refusedForMore,omitempty"`
	NewlyAccepted int `json:"newlyAccepted,omitempty"`
	NewlyWarned   int `json:"newlyWarned,omitempty"`
	NewlyStuck    int `json:"newlyStuck,omitempty"`
	NewlyOutdated int `json:"withNewlyOutdatedSidecar,omitempty"`
}

// Refuses says whether something would be refused, or a Pod would not come up; in a preview, by the policy that is previewed alone.
func (s *Summary) Refuses(b Basis) bool {
	if b.Preview {
		return s.NewlyRefused+s.RefusedMore+s.NewlyStuck > 0
	}
	return s.Refused+s.Stuck > 0
}

// Add counts one more.
func (s *Summary) Add(r *Report) {
	count := func(n *int, is bool) {
		if is {
			*n++
		}
	}
	switch {
	case r.NotRead != "":
		return
	case r.Template != "":
		s.Templates++
	default:
		s.Workloads++
	}
	count(&s.NotUnderstood, r.NotUnderstood != "")
	count(&s.Refused, len(r.Refused) > 0)
	count(&s.Warned, len(r.Refused) == 0 && len(r.Warned) > 0)
	count(&s.Stuck, len(r.Stuck) > 0)
	count(&s.NotAdopted, r.Sidecar != "" && !r.Adopted)
	count(&s.NoSidecar, r.Sidecar == SidecarMissing)
	count(&s.Outdated, r.Adopted && r.Sidecar == SidecarOutdated)
	count(&s.TakesUnsigned, r.TakesUnsigned)
	for _, news := range r.News {
		count(&s.NewlyRefused, news == NewlyRefused)
		count(&s.RefusedMore, news == RefusedMore)
		count(&s.NewlyAccepted, news == NewlyAccepted)
		count(&s.NewlyWarned, news == NewlyWarned)
		count(&s.NewlyStuck, news == NewlyStuck)
		count(&s.NewlyOutdated, news == NewlyOutdated)
	}
}

// Writer writes an audit as it goes, so that a fleet of any size takes little memory.
type Writer interface {
	Report(*Report) error

	// Add writes what another part has found. It comes after the last Report.
	Add(Addition) error

	End(Summary) error
}

// Addition is what another part has found that an audit tells of.
type Addition struct {
	// Key is where programs find Value.
	Key   string
	Value any

	// Text says the same to people, in lines that are fit for a terminal.
	Text string
}

// Basis is what an audit judges by.
type Basis struct {
	// Policy says in words where it is from, Hash which it is.
	Policy string `json:"policy"`
	Hash   string `json:"hash"`

	// Preview says that it is not in force, and Installed that there is one in force.
	Preview   bool `json:"preview"`
	Installed bool `json:"installed"`

	// RulesRevision is the policy's, and AuditedOnly are the rules that are audited because they are newer.
	RulesRevision int32    `json:"rulesRevision,omitempty"`
	AuditedOnly   []string `json:"auditedOnly,omitempty"`

	// InForce are the rules that are not enforced on agents of any age. RecordProblem says why that could not be read.
	InForce       []InForce `json:"inForce,omitempty"`
	RecordProblem string    `json:"recordProblem,omitempty"`
}

// NewTextWriter writes for people: a line for each workload of which there is something to say, and below it what.
func NewTextWriter(w io.Writer, basis Basis) Writer { return &textWriter{w: w, basis: basis} }

type textWriter struct {
	w     io.Writer
	basis Basis
}

// Report implements Writer.
func (t *textWriter) Report(r *Report) error {
	if r.NotRead != "" {
		_, err := fmt.Fprintf(t.w, "the templates of the gateway and of roles are not judged: %s\n", policy.Printable(r.NotRead))
		return err
	}
	if t.basis.Preview && r.NotUnderstood == "" && !slices.ContainsFunc(r.News, func(n News) bool { return n != NewlyOutdated }) {
		return nil
	}
	title := titleOf(r)
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if r.NotUnderstood != "" {
		say("%s", r.NotUnderstood)
	}
	for _, f := range r.Refused {
		say("%s", f)
	}
	for _, f := range r.Warned {
		say("warning: %s", f)
	}
	for _, f := range r.Audited {
		say("audit: %s", f)
	}
	for _, f := range r.Stuck {
		say("its next Pod: %s", f)
	}
	switch r.Sidecar {
	case SidecarMissing:
		say("it has no sidecar")
	case SidecarOutdated:
		switch {
		case !r.Adopted && r.SidecarImage == "":
			say("nothing is injected")
		case r.SidecarImage != "":
			say("its sidecar is %s, or what else is injected is not today's", r.SidecarImage)
		default:
			say("what is injected is not today's")
		}
	}
	if len(lines) == 0 && len(r.News) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(t.w, "%s\n", policy.Printable(title))
	for _, line := range lines {
		if err == nil {
			_, err = fmt.Fprintf(t.w, "  %s\n", policy.Printable(line))
		}
	}
	return err
}

// Add implements Writer.
func (t *textWriter) Add(a Addition) error {
	_, err := io.WriteString(t.w, a.Text)
	return err
}

func titleOf(r *Report) string {
	title := fmt.Sprintf("%s/%s %s: ", r.Namespace, r.Kind, r.Name)
	if r.Template != "" {
		title = fmt.Sprintf("%s/%s %s (%s): ", r.Namespace, r.Kind, r.Name, r.Template)
	}
	if len(r.News) > 0 {
		var news []string
		for _, n := range r.News {
			news = append(news, string(n))
		}
		return title + strings.Join(news, ", ")
	}
	switch {
	case r.NotUnderstood != "":
		return title + "not understood"
	case len(r.Refused) > 0:
		return title + "would be refused"
	case len(r.Stuck) > 0:
		return title + "its next Pod would not come up"
	case len(r.Warned) > 0:
		return title + "would be warned about"
	case len(r.Audited) > 0:
		return title + "would be counted"
	case r.Sidecar != "" && !r.Adopted:
		return title + "not adopted"
	}
	return title + "not up to date"
}

// End implements Writer.
func (t *textWriter) End(s Summary) error {
	inForce := "in force"
	switch {
	case t.basis.Preview && t.basis.Installed:
		inForce = "not in force"
	case !t.basis.Installed:
		inForce = "the system is not installed"
	}
	judged := fmt.Sprintf("%d workloads", s.Workloads)
	if s.Templates > 0 {
		judged += fmt.Sprintf(" and %d in templates", s.Templates)
	}
	_, err := fmt.Fprintf(t.w, "%s by %s (%s): %d would be refused, %d warned about; the next Pod of %d would not come up\n",
		judged, t.basis.Policy, inForce, s.Refused, s.Warned, s.Stuck)
	if err == nil && t.basis.Preview {
		_, err = fmt.Fprintf(t.w, "compared with today: %d newly refused, %d refused for more, %d newly accepted, %d newly warned about; the next Pod of %d "+
			"would newly not come up; %d newly not up to date\n", s.NewlyRefused, s.RefusedMore, s.NewlyAccepted, s.NewlyWarned, s.NewlyStuck, s.NewlyOutdated)
	}
	if err == nil && s.NotAdopted+s.NoSidecar+s.Outdated > 0 {
		_, err = fmt.Fprintf(t.w, "%d are not adopted, %d have no sidecar, %d are not up to date\n", s.NotAdopted, s.NoSidecar, s.Outdated)
	}
	if err == nil && s.TakesUnsigned > 0 {
		_, err = fmt.Fprintf(t.w, "%d take unsigned activity: they get the gateway's key when their template changes, or by kubectl agents upgrade\n",
			s.TakesUnsigned)
	}
	if err == nil && s.NotUnderstood > 0 {
		_, err = fmt.Fprintf(t.w, "%d could not be judged\n", s.NotUnderstood)
	}
	if err == nil {
		_, err = io.WriteString(t.w, t.basis.rules())
	}
	return err
}

// rules says, in lines for people, which rules are not enforced on every agent.
func (b *Basis) rules() string {
	var lines strings.Builder
	if len(b.AuditedOnly) > 0 {
		fmt.Fprintf(&lines, "audited only, since the policy's rulesRevision is %d: %s\n", b.RulesRevision, strings.Join(b.AuditedOnly, ", "))
	}
	for _, rule := range b.InForce {
		fmt.Fprintf(&lines, "rule %s of profile %s is enforced since %s; Pods of older agents are warned about\n", rule.Rule, rule.Profile,
			rule.Since.UTC().Format(time.RFC3339))
	}
	if b.RecordProblem != "" {
		fmt.Fprintf(&lines, "since when rules are enforced could not be read: %s\n", policy.Printable(b.RecordProblem))
	}
	return lines.String()
}

// NewJSONWriter writes one JSON object for programs, with all workloads in it.
func NewJSONWriter(w io.Writer, basis Basis) Writer { return &jsonWriter{w: w, basis: basis} }

type jsonWriter struct {
	w       io.Writer
	basis   Basis
	started bool
	added   []Addition
}

// begin writes what stands before the first workload.
func (j *jsonWriter) begin() error {
	basis, err := json.Marshal(j.basis)
	if err != nil {
		return err
	}
	j.started = true
	_, err = fmt.Fprintf(j.w, "{\n\"basis\": %s,\n\"workloads\": [", basis)
	return err
}

// Report implements Writer.
func (j *jsonWriter) Report(r *Report) error {
	separator := ","
	if !j.started {
		separator = ""
		if err := j.begin(); err != nil {
			return err
		}
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(j.w, "%s\n  %s", separator, terminal.PrintableJSON(line))
	return err
}

// Add implements Writer.
func (j *jsonWriter) Add(a Addition) error {
	j.added = append(j.added, a)
	return nil
}

// End implements Writer.
func (j *jsonWriter) End(s Summary) error {
	if !j.started {
		if err := j.begin(); err != nil {
			return err
		}
	}
	summary, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(j.w, "\n],\n\"summary\": %s", summary); err != nil {
		return err
	}
	for _, a := range j.added {
		value, err := json.Marshal(a.Value)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(j.w, ",\n%q: %s", a.Key, terminal.PrintableJSON(value)); err != nil {
			return err
		}
	}
	_, err = io.WriteString(j.w, "\n}\n")
	return err
}

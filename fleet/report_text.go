package fleet

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/dexorder/agent-lifecycle/policy"
)

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

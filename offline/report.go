package offline

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/dexorder/agent-lifecycle/offline/manifest"
	"github.com/dexorder/agent-lifecycle/policy"
)

// WriteText writes verdicts for people: a line for each object with its place, and under it what there is to say.
func WriteText(w io.Writer, verdicts []Verdict) error {
	if len(verdicts) == 0 {
		return nil
	}
	var b bytes.Buffer
	var counts [NotUnderstood + 1]int
	for i := range verdicts {
		v := &verdicts[i]
		counts[v.Outcome]++
		line(&b, "", "%s: %s: %s", v.place(v.Object.Line("")), v.name(), v.Outcome)
		for _, f := range v.Reasons {
			line(&b, "  ", "%s: %s", v.place(f.Line), f)
		}
		for _, f := range v.Warnings {
			line(&b, "  ", "%s: warning: %s", v.place(f.Line), f)
		}
	}
	var parts []string
	for outcome, n := range counts {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, Outcome(outcome)))
		}
	}
	line(&b, "", "%s", strings.Join(parts, ", "))
	_, err := w.Write(b.Bytes())
	return err
}

// line writes one line, whatever the manifest holds.
func line(b *bytes.Buffer, indent, format string, args ...any) {
	b.WriteString(indent)
	b.WriteString(policy.Printable(fmt.Sprintf(format, args...)))
	b.WriteByte('\n')
}

// jsonVerdict is the form that programs read.
type jsonVerdict struct {
	Kind      string             `json:"kind"`
	Namespace string             `json:"namespace"`
	Name      string             `json:"name"`
	Allowed   bool               `json:"allowed"`
	Reasons   []policy.Violation `json:"reasons"`
	Warnings  []string           `json:"warnings"`
}

// WriteJSON writes verdicts as a JSON list, in their order. Lists without elements are empty and not null.
func WriteJSON(w io.Writer, verdicts []Verdict) error {
	list := make([]jsonVerdict, len(verdicts))
	for i := range verdicts {
		v := &verdicts[i]
		list[i] = jsonVerdict{
			Kind: v.Object.GVK.Kind, Namespace: v.Namespace, Name: v.Object.Name, Allowed: v.Allowed(),
			Reasons: []policy.Violation{}, Warnings: []string{},
		}
		for _, f := range v.Reasons {
			reason := policy.Violation{Rule: f.Rule, Field: f.Field, Message: f.Message}
			if f.Rule == notUnderstood {
				reason.Message = fmt.Sprintf("line %d: %s", f.Line, f.Message) // There may be no name to find it by.
			}
			list[i].Reasons = append(list[i].Reasons, reason)
		}
		for _, f := range v.Warnings {
			list[i].Warnings = append(list[i].Warnings, f.String())
		}
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(list)
}

// WriteGitHub writes a GitHub Actions workflow command for every reason and warning, which GitHub shows at its line in
// a pull request.
func WriteGitHub(w io.Writer, verdicts []Verdict) error {
	var b bytes.Buffer
	for i := range verdicts {
		v := &verdicts[i]
		for _, f := range v.Reasons {
			v.command(&b, "error", f)
		}
		for _, f := range v.Warnings {
			v.command(&b, "warning", f)
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// The escapes that GitHub's runner undoes, in a command's message and in its properties.
var (
	githubMessage  = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	githubProperty = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
)

func (v *Verdict) command(b *bytes.Buffer, command string, f Finding) {
	var properties []string
	if file := v.Object.Document.File; file != "" {
		properties = append(properties, "file="+githubProperty.Replace(file), "line="+strconv.Itoa(f.Line))
	}
	if f.Rule != "" {
		properties = append(properties, "title="+githubProperty.Replace(f.Rule))
	}
	if len(properties) > 0 {
		command += " "
	}
	message := policy.Printable(v.name() + ": " + Finding{Field: f.Field, Message: f.Message}.String())
	fmt.Fprintf(b, "::%s%s::%s\n", command, strings.Join(properties, ","), githubMessage.Replace(message))
}

// Describe returns a finding about the document on one line, with its place.
func Describe(d *manifest.Document, f Finding) string {
	return policy.Printable(place(d, f.Line) + ": " + f.String())
}

func (v *Verdict) place(line int) string { return place(v.Object.Document, line) }

func place(d *manifest.Document, line int) string {
	file := d.File
	if file == "" {
		file = manifest.Stdin
	}
	return file + ":" + strconv.Itoa(line)
}

func (v *Verdict) name() string { return nameOf(v.Object, v.Namespace) }

// nameOf returns the object's kind, namespace and name, as far as they are known.
func nameOf(o *manifest.Object, namespace string) string {
	kind, name := o.GVK.Kind, o.Name
	if kind == "" {
		kind = fmt.Sprintf("document %d", o.Document.Index)
	}
	if name == "" && o.GenerateName != "" {
		name = o.GenerateName + "…"
	}
	if namespace != "" && name != "" {
		name = namespace + "/" + name
	}
	return strings.TrimSpace(kind + " " + name)
}

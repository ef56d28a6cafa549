package offline

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/pmezard/go-difflib/difflib"
	"go.yaml.in/yaml/v3"
	operations "gomodules.xyz/jsonpatch/v2"
	kjson "sigs.k8s.io/json"

	"github.com/dexorder/agent-lifecycle/offline/manifest"
	"github.com/dexorder/agent-lifecycle/policy"
)

type patch []operations.Operation

// Injection is a document as it would be stored.
type Injection struct {
	Document *manifest.Document

	// JSON is the document with everything injected into what it holds.
	JSON []byte

	// Changed says that something was.
	Changed bool

	Warnings []Finding
}

// Inject returns a document as it would be stored: every Deployment in it with the lifecycle's parts, all else as it is.
// The findings say what is not understood; the injection is good for nothing then.
func (j *Judge) Inject(d *manifest.Document) (Injection, []Finding) {
	in := Injection{Document: d, JSON: d.JSON}
	var failures []Finding
	var all patch
	for _, o := range d.Objects {
		s, failure := j.read(o)
		if failure != nil {
			failures = append(failures, asFinding(o, failure))
			continue
		}
		if s == nil {
			continue
		}
		for _, operation := range j.inject(o, s) {
			operation.Path = string(o.Pointer) + operation.Path
			all = append(all, operation)
		}
		in.Warnings = append(in.Warnings, s.warnings...)
	}
	if len(failures) > 0 || len(all) == 0 {
		return in, failures
	}
	changed, err := all.apply(d.JSON)
	if err != nil {
		return in, []Finding{{Rule: notUnderstood, Line: d.Line, Message: err.Error()}}
	}
	in.JSON, in.Changed = changed, true
	return in, nil
}

// apply changes the document's own JSON, so that what this program does not know of survives.
func (p patch) apply(document []byte) ([]byte, error) {
	encoded, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode the patch: %w", err)
	}
	decoded, err := jsonpatch.DecodePatch(encoded)
	if err != nil {
		return nil, fmt.Errorf("decode the patch: %w", err)
	}
	changed, err := decoded.Apply(document)
	if err != nil {
		return nil, fmt.Errorf("apply the patch: %w", err)
	}
	return changed, nil
}

// YAML returns the document as YAML: as it was written if nothing was changed, else with its keys sorted.
func (in *Injection) YAML() ([]byte, error) {
	if !in.Changed {
		if text := in.Document.Verbatim(); text != nil {
			return append(bytes.TrimRight(text, "\r\n"), '\n'), nil
		}
	}
	return toYAML(in.JSON)
}

// Diff returns what injection changes as a unified diff of two YAML documents with sorted keys. Empty if nothing.
func (in *Injection) Diff() (string, error) {
	if !in.Changed {
		return "", nil
	}
	before, err := toYAML(in.Document.JSON)
	if err != nil {
		return "", err
	}
	after, err := toYAML(in.JSON)
	if err != nil {
		return "", err
	}
	return difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: lines(before), FromFile: in.title() + " as given",
		B: lines(after), ToFile: in.title() + " as stored",
		Context: 3,
	})
}

// lines splits a text that ends with a line's end, which difflib.SplitLines takes for one line more.
func lines(text []byte) []string {
	return slices.Collect(strings.Lines(string(text)))
}

func (in *Injection) title() string {
	title := place(in.Document, in.Document.Line)
	if objects := in.Document.Objects; len(objects) == 1 {
		title += " " + nameOf(objects[0], objects[0].Namespace)
	}
	return policy.Printable(title)
}

// toYAML converts with sorted keys. The YAML library is given values and not JSON, which it would not read in full.
func toYAML(document []byte) ([]byte, error) {
	var tree any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(document, &tree); err != nil {
		return nil, fmt.Errorf("read the document's JSON: %w", err)
	}
	var b bytes.Buffer
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	encoder.CompactSeqIndent()
	if err := encoder.Encode(tree); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	if err := encoder.Close(); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return b.Bytes(), nil
}

// ToJSON returns what was injected as one JSON value, a List where there are several documents.
func ToJSON(injections []Injection) ([]byte, error) {
	var value jsontext.Value
	if len(injections) == 1 {
		value = bytes.Clone(injections[0].JSON)
	} else {
		items := make([][]byte, len(injections))
		for i := range injections {
			items[i] = injections[i].JSON
		}
		value = fmt.Appendf(nil, `{"apiVersion":"v1","kind":"List","items":[%s]}`, bytes.Join(items, []byte(",")))
	}
	if err := value.Format(jsontext.ReorderRawObjects(true), jsontext.Multiline(true), jsontext.WithIndent("  ")); err != nil {
		return nil, fmt.Errorf("write JSON: %w", err)
	}
	return append(value, '\n'), nil
}

package reaper

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// finding is one way in which a namespace differs from its role's template.
type finding struct {
	object string

	// path is the field; "" for the object as a whole, of which found says it all.
	path string

	wanted, found string
}

func (f finding) String() string {
	if f.path == "" {
		return f.object + " " + f.found
	}
	return fmt.Sprintf("%s: %s is %s, in the template %s", f.object, f.path, f.found, f.wanted)
}

const (
	// nothing is how a field that is not there is shown.
	nothing = "nothing"

	// longestValue bounds a value, longestDrift what is written on a namespace.
	longestValue = 80
	longestDrift = 512
)

// drift is all the ways in which a namespace differs.
type drift []finding

// hash is another one if anything of it changes.
func (d drift) hash() string {
	h := fnv.New64a()
	for _, f := range d {
		_, _ = io.WriteString(h, f.String()+"\n")
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

// summary says it in short, for a namespace's annotation.
func (d drift) summary() string {
	count := "1 difference"
	if len(d) != 1 {
		count = fmt.Sprintf("%d differences", len(d))
	}
	return shorten(fmt.Sprintf("%s (%s): %s", count, d.hash(), strings.Join(d.lines(), "; ")), longestDrift)
}

func (d drift) lines() []string {
	lines := make([]string, 0, len(d))
	for _, f := range d {
		lines = append(lines, f.String())
	}
	return lines
}

func shorten(s string, length int) string {
	if len(s) <= length {
		return s
	}
	return strings.ToValidUTF8(s[:length-len("…")], "") + "…"
}

// comparison compares an object with what its role's template has of it.
type comparison struct {
	*wanted
	findings drift
}

// compare says how an object differs from the template: in every field that the template has, and in no other. An entry that the
// template does not have may be in a list whose entries have names, as injected containers are; not in one of rights or of network
// policies, where one more entry allows more.
func compare(w *wanted, fields map[string]any) drift {
	c := comparison{wanted: w}
	c.maps("", w.fields, fields, false)
	return c.findings
}

func (c *comparison) differs(path string, want, have any) {
	c.findings = append(c.findings, finding{object: c.id(), path: path, wanted: shown(want), found: shown(have)})
}

// exact says whether lists must not have more entries than the template.
func (c *comparison) exact() bool {
	return c.gvk.Group == rbacv1.GroupName || c.gvk.Kind == "NetworkPolicy"
}

// values compares a value. quantity says that it is one of resources.
func (c *comparison) values(path string, want, have any, quantity bool) {
	switch want := want.(type) {
	case map[string]any:
		have, is := have.(map[string]any)
		if !is && len(want) > 0 && !c.hidden(path) {
			c.differs(path, want, nil)
			return
		}
		c.maps(path, want, have, quantity)
	case []any:
		have, _ := have.([]any)
		c.lists(path, want, have)
	case unset:
		if !c.unset(have) {
			c.differs(path, want, have)
		}
	default:
		if !same(want, have, quantity) {
			c.differs(path, want, have)
		}
	}
}

// hidden says whether values are none of the reaper's business.
func (c *comparison) hidden(path string) bool { return c.gvk.Kind == "Secret" && path == "data" }

// unset says whether a field is as if it were not set. What is injected into lists whose entries have names does not count.
func (c *comparison) unset(have any) bool {
	list, is := have.([]any)
	if !is {
		return have == nil || reflect.ValueOf(have).IsZero()
	}
	return len(list) == 0 || !c.exact() && slices.ContainsFunc(listKeys(), func(key string) bool { return keyed(list, key) != nil })
}

// listKeys are fields by which entries of lists are told apart.
func listKeys() []string { return []string{"name", "mountPath", "containerPort", "port"} }

func (c *comparison) maps(path string, want, have map[string]any, quantity bool) {
	for _, key := range slices.Sorted(maps.Keys(want)) {
		value, has := have[key]
		below := field(path, key)
		if c.hidden(path) {
			if !has { // the key is all there is to know
				c.findings = append(c.findings, finding{object: c.id(), path: below, wanted: "there", found: "missing"})
			}
			continue
		}
		c.values(below, want[key], value, quantity || c.gvk.Kind != "ConfigMap" && quantities[key])
	}
}

// quantities are fields whose values, or whose entries' values, are quantities.
var quantities = map[string]bool{
	"limits": true, "requests": true, "hard": true, "sizeLimit": true, "divisor": true, "max": true, "min": true, "default": true,
	"defaultRequest": true, "maxLimitRequestRatio": true,
}

func (c *comparison) lists(path string, want, have []any) {
	for _, key := range listKeys() {
		wanted, found := keyed(want, key), keyed(have, key)
		if len(want) == 0 || wanted == nil || found == nil {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(wanted)) {
			c.values(path+"["+name+"]", wanted[name], orNothing(found, name), false)
		}
		for _, name := range slices.Sorted(maps.Keys(found)) {
			if _, has := wanted[name]; !has && c.exact() {
				c.differs(path+"["+name+"]", nil, found[name])
			}
		}
		return
	}
	if len(want) != len(have) {
		c.differs(path, want, have)
		return
	}
	for i := range want {
		c.values(fmt.Sprintf("%s[%d]", path, i), want[i], have[i], false)
	}
}

// keyed returns the entries of a list by a field that tells them apart; nil if it does not.
func keyed(list []any, key string) map[string]any {
	entries := map[string]any{}
	for _, entry := range list {
		fields, is := entry.(map[string]any)
		if !is || fields[key] == nil {
			return nil
		}
		entries[fmt.Sprint(fields[key])] = entry
	}
	if len(entries) != len(list) {
		return nil
	}
	return entries
}

func orNothing(entries map[string]any, name string) any {
	if entry, has := entries[name]; has {
		return entry
	}
	return nil
}

// same says whether two values mean the same: "1Gi" is "1024Mi", and the port 80 is "80".
func same(want, have any, quantity bool) bool {
	if reflect.DeepEqual(want, have) {
		return true
	}
	if want == nil || have == nil {
		return false
	}
	if _, is := want.(string); is != isString(have) && !isBool(want) && !isBool(have) {
		return fmt.Sprint(want) == fmt.Sprint(have)
	}
	if !quantity {
		return false
	}
	a, err := resource.ParseQuantity(fmt.Sprint(want))
	if err != nil {
		return false
	}
	b, err := resource.ParseQuantity(fmt.Sprint(have))
	return err == nil && a.Cmp(b) == 0
}

func isString(v any) bool { _, is := v.(string); return is }

func isBool(v any) bool { _, is := v.(bool); return is }

// field is the path of a field below another one.
func field(path, key string) string {
	switch {
	case path == "":
		return key
	case strings.ContainsAny(key, "./"):
		return path + "[" + key + "]"
	}
	return path + "." + key
}

// shown is a value for people.
func shown(v any) string {
	if v == nil {
		return nothing
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("%T", v)
	}
	return shorten(string(text), longestValue)
}

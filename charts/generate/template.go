package main

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// template is the object as a template: what differs between installations stands between conditions.
func (o object) template() (string, error) {
	var present []alternative
	var absent []string
	for _, a := range o.otherwise {
		if a.tree == nil {
			absent = append(absent, a.when)
		} else {
			present = append(present, a)
		}
	}
	var w writer
	w.line(0, "---")
	if err := w.node(0, o.tree, present); err != nil {
		return "", err
	}
	text := w.String()
	when := o.when
	if len(absent) > 0 {
		unless := "(not " + either(absent) + ")"
		if when = unless; o.when != "" {
			when = fmt.Sprintf("(and %s %s)", o.when, unless)
		}
	}
	if when != "" {
		text = "{{- if " + when + " }}\n" + text + "{{- end }}\n"
	}
	return text, nil
}

func either(conditions []string) string {
	if len(conditions) == 1 {
		return conditions[0]
	}
	return "(or " + strings.Join(conditions, " ") + ")"
}

type writer struct{ strings.Builder }

func (w *writer) line(indent int, text string) {
	w.WriteString(strings.Repeat(" ", indent) + text + "\n")
}

// control writes a line that leaves nothing behind.
func (w *writer) control(action string) { w.WriteString("{{- " + action + " }}\n") }

// node writes a value that is the same in all installations, or a map or list that is not.
func (w *writer) node(indent int, value any, others []alternative) error {
	if len(others) == 0 {
		return w.plain(indent, value)
	}
	if !alike(value, others) {
		return fmt.Errorf("%v is something else when %s", value, others[0].when)
	}
	if fields, ok := value.(map[string]any); ok {
		return w.fields(indent, fields, others)
	}
	return w.items(indent, value.([]any), others)
}

func (w *writer) fields(indent int, value map[string]any, others []alternative) error {
	keys := map[string]bool{}
	for key := range value {
		keys[key] = true
	}
	for _, a := range others {
		for key := range a.tree.(map[string]any) {
			keys[key] = true
		}
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		usual, differing := value[key], []alternative{}
		for _, a := range others {
			if other := a.tree.(map[string]any)[key]; !reflect.DeepEqual(other, usual) {
				differing = append(differing, alternative{a.when, other})
			}
		}
		var err error
		switch {
		case len(differing) == 0:
			err = w.plain(indent, map[string]any{key: usual})
		case alike(usual, differing):
			w.line(indent, key+":")
			child := indent + 2
			if _, list := usual.([]any); list {
				child = indent
			}
			err = w.node(child, usual, differing)
		default:
			err = w.either(indent, key, usual, differing)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}

// alike says whether maps differ in fields, or lists in what is appended and in items that are alike.
func alike(usual any, others []alternative) bool {
	switch usual := usual.(type) {
	case map[string]any:
		return !slices.ContainsFunc(others, func(a alternative) bool {
			_, ok := a.tree.(map[string]any)
			return !ok
		})
	case []any:
		return !slices.ContainsFunc(others, func(a alternative) bool {
			items, ok := a.tree.([]any)
			if !ok || len(items) < len(usual) {
				return true
			}
			for i := range usual {
				if !reflect.DeepEqual(items[i], usual[i]) && !alike(usual[i], []alternative{{a.when, items[i]}}) {
					return true
				}
			}
			return false
		})
	}
	return false
}

// either writes a field that has one of several values, or is not there.
func (w *writer) either(indent int, key string, usual any, others []alternative) error {
	action := "if"
	for len(others) > 0 {
		value, same := others[0].tree, []string{}
		others = slices.DeleteFunc(others, func(a alternative) bool {
			if reflect.DeepEqual(a.tree, value) {
				same = append(same, a.when)
				return true
			}
			return false
		})
		w.control(action + " " + either(same))
		if value != nil {
			if err := w.plain(indent, map[string]any{key: value}); err != nil {
				return err
			}
		}
		action = "else if"
	}
	if usual != nil {
		w.control("else")
		if err := w.plain(indent, map[string]any{key: usual}); err != nil {
			return err
		}
	}
	w.control("end")
	return nil
}

// items writes a list whose items may differ, and to which items may be appended.
func (w *writer) items(indent int, value []any, others []alternative) error {
	type extra struct {
		items []any
		when  []string
	}
	var extras []extra
	for _, a := range others {
		more := a.tree.([]any)[len(value):]
		if len(more) == 0 {
			continue
		}
		i := slices.IndexFunc(extras, func(e extra) bool { return reflect.DeepEqual(e.items, more) })
		if i < 0 {
			extras = append(extras, extra{items: more})
			i = len(extras) - 1
		}
		extras[i].when = append(extras[i].when, a.when)
	}
	for i, item := range value {
		differing := []alternative{}
		for _, a := range others {
			if other := a.tree.([]any)[i]; !reflect.DeepEqual(other, item) {
				differing = append(differing, alternative{a.when, other})
			}
		}
		if len(differing) == 0 {
			if err := w.plain(indent, []any{item}); err != nil {
				return err
			}
			continue
		}
		w.line(indent, "-")
		if err := w.node(indent+2, item, differing); err != nil {
			return fmt.Errorf("%d: %w", i, err)
		}
	}
	for _, e := range extras {
		w.control("if " + either(e.when))
		if err := w.plain(indent, e.items); err != nil {
			return err
		}
		w.control("end")
	}
	return nil
}

var holePattern = regexp.MustCompile(`^( *)(.*?)HOLE-(\d+)$`)

// plain writes a value as YAML, in which nothing is an action of the template language but what fills a hole.
func (w *writer) plain(indent int, value any) error {
	content, err := yaml.Marshal(value)
	if err != nil {
		return err
	}
	for text := range strings.Lines(string(content)) {
		text = strings.TrimSuffix(text, "\n")
		found := holePattern.FindStringSubmatch(text)
		if found == nil {
			if text != "" {
				text = strings.Repeat(" ", indent) + text
			}
			w.line(0, strings.ReplaceAll(text, "{{", `{{ "{{" }}`))
			continue
		}
		n, err := strconv.Atoi(found[3])
		if err != nil {
			return err
		}
		if err := w.hole(indent+len(found[1]), found[2], holes[n]); err != nil {
			return err
		}
	}
	return nil
}

// hole writes what fills one: behind its field, or below it, or in place of an item.
func (w *writer) hole(indent int, field string, h hole) error {
	with := strings.ReplaceAll(h.with, "INDENT", strconv.Itoa(indent+2))
	first, rest, many := strings.Cut(with, "\n")
	switch {
	case h.item:
		if field != "- " {
			return errors.New("an item that is none")
		}
		w.WriteString(first + "\n")
	case many:
		w.line(indent, strings.TrimRight(field, " ")+first)
	default:
		w.line(indent, field+first)
	}
	if many {
		for text := range strings.Lines(rest) {
			if strings.HasPrefix(text, "{{-") {
				w.WriteString(text)
			} else {
				w.WriteString(strings.Repeat(" ", indent) + text)
			}
		}
		w.WriteString("\n")
	}
	return nil
}

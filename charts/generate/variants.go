package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// choice is one thing that values turn on: a component, or something that is left out.
type choice struct {
	when      string // a condition of the template language
	component string
	leaveOut  string   // an object: kind and name
	remove    place    // a map of which
	keys      []string // these are left out
}

// place is a field of an object. The name of one that ends in a hash is given without it.
type place struct {
	kind, name string
	path       []any
}

// hole is a place that a template expression fills. An item stands in a list, after what every installation has there; or after all
// that is there, if no plain installation has the object.
type hole struct {
	place
	item bool
	with string
	// optional is for a place that only some of the variants of its object have.
	optional bool
}

// token stands for a hole until the template is written.
func (h hole) token() string {
	return fmt.Sprintf("HOLE-%d", slices.IndexFunc(holes, func(o hole) bool { return reflect.DeepEqual(o, h) }))
}

// object is what the templates say of one object.
type object struct {
	key  string
	when string // in which installations there is one; empty: in all
	tree any
	// otherwise is how it looks by one more choice each; without a tree there is none.
	otherwise []alternative
}

type alternative struct {
	when string
	tree any
}

func (o object) file() string {
	kind, _, _ := strings.Cut(o.key, " ")
	return "templates/" + strings.ToLower(kind) + ".yaml"
}

// variants renders every installation that differs by one choice from the plain one and, for what a choice brings, by one more.
func variants() ([]object, error) {
	base, err := render()
	if err != nil {
		return nil, err
	}
	single := make([]map[string]any, len(switches))
	for i := range switches {
		if single[i], err = render(switches[i]); err != nil {
			return nil, err
		}
	}
	var objects []object
	for _, key := range slices.Sorted(maps.Keys(base)) {
		o := object{key: key, tree: base[key]}
		for i, s := range switches {
			o.add(s, single[i][key])
		}
		objects = append(objects, o)
	}
	brought := map[string]*object{}
	for i, s := range switches {
		for key, tree := range single[i] {
			if base[key] != nil {
				continue
			}
			o := object{key: key, when: s.when, tree: tree}
			for _, other := range switches {
				if other.when == s.when || slices.Contains(exclusive, other.component) && slices.Contains(exclusive, s.component) {
					continue
				}
				both, err := render(s, other)
				if err != nil {
					return nil, err
				}
				o.add(other, both[key])
			}
			if known := brought[key]; known == nil {
				brought[key] = &o
			} else if !reflect.DeepEqual(known.tree, o.tree) || !reflect.DeepEqual(known.otherwise, o.otherwise) {
				return nil, fmt.Errorf("%s is not the same when %s and when %s", key, known.when, s.when)
			} else {
				known.when = fmt.Sprintf("(or %s %s)", known.when, s.when)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(brought)) {
		objects = append(objects, *brought[key])
	}
	for _, h := range holes {
		if !slices.ContainsFunc(objects, func(o object) bool { return o.key == h.kind+" "+h.name }) {
			return nil, fmt.Errorf("there is no %s %s whose %v could be filled", h.kind, h.name, h.path)
		}
	}
	slices.SortStableFunc(objects, func(a, b object) int { return strings.Compare(a.key, b.key) })
	return objects, nil
}

func (o *object) add(c choice, tree any) {
	if !reflect.DeepEqual(tree, o.tree) {
		o.otherwise = append(o.otherwise, alternative{c.when, tree})
	}
}

// render is what kustomize makes of the plain installation with some choices, in their order, with tokens in its holes.
func render(choices ...choice) (map[string]any, error) {
	components := slices.Clone(plain)
	for _, s := range switches {
		for _, c := range choices {
			if c.component != "" && c.when == s.when {
				components = append(components, c.component)
			}
		}
	}
	objects, err := build(components)
	if err != nil {
		return nil, err
	}
	for _, c := range choices {
		if c.leaveOut != "" {
			if objects[c.leaveOut] == nil {
				return nil, fmt.Errorf("there is no %s to leave out", c.leaveOut)
			}
			delete(objects, c.leaveOut)
		}
		for _, key := range c.keys {
			labels, ok := find(objects, c.remove).(map[string]any)
			if !ok || labels[key] == nil {
				return nil, fmt.Errorf("%s %s has no %s to leave out", c.remove.kind, c.remove.name, key)
			}
			delete(labels, key)
		}
	}
	for _, h := range holes {
		if err := fill(objects, h); err != nil {
			return nil, err
		}
	}
	return objects, nil
}

// hash is what kustomize appends to the names of what it generates.
var hash = regexp.MustCompile(`-[bcdfghkmt2456789]{10}$`)

// built is what kustomize made of a list of components, which takes a while.
var built = map[string][]byte{}

// build runs kustomize on the base with components. What it returns is the caller's.
func build(components []string) (map[string]any, error) {
	list := strings.Join(components, " ")
	if built[list] == nil {
		objects, err := kustomize(components)
		if err != nil {
			return nil, fmt.Errorf("components %s: %w", list, err)
		}
		if built[list], err = json.Marshal(objects); err != nil {
			return nil, err
		}
	}
	var objects map[string]any
	err := json.Unmarshal(built[list], &objects)
	return objects, err
}

func kustomize(components []string) (map[string]any, error) {
	dir, err := os.MkdirTemp("", "chart-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if dir, err = filepath.EvalSymlinks(dir); err != nil { // kustomize follows links before it goes up
		return nil, err
	}
	source, err := filepath.Abs(manifestsDir)
	if err != nil {
		return nil, err
	}
	up, err := filepath.Rel(dir, source)
	if err != nil {
		return nil, err
	}
	k := types.Kustomization{Resources: []string{filepath.Join(up, "base")}}
	for _, c := range components {
		k.Components = append(k.Components, filepath.Join(up, "components", c))
	}
	content, err := yaml.Marshal(k)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), content, 0o600); err != nil {
		return nil, err
	}
	found, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, err
	}
	objects := map[string]any{}
	for _, r := range found.Resources() {
		var tree any
		content, err := r.MarshalJSON()
		if err == nil {
			err = json.Unmarshal(content, &tree)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.CurId(), err)
		}
		// Of the same kind and name there is one in each namespace, perhaps; and what ends in a hash is known without it.
		key := r.GetKind() + " " + hash.ReplaceAllString(r.GetName(), "")
		if objects[key] != nil {
			key += " in " + r.GetNamespace()
		}
		objects[key] = tree
	}
	return objects, nil
}

func find(objects map[string]any, p place) any {
	node := objects[p.kind+" "+p.name]
	for _, step := range p.path {
		switch step := step.(type) {
		case string:
			fields, _ := node.(map[string]any)
			node = fields[step]
		case int:
			items, _ := node.([]any)
			if step >= len(items) {
				return nil
			}
			node = items[step]
		}
	}
	return node
}

// fill puts a hole's token where it belongs, if the object is there.
func fill(objects map[string]any, h hole) error {
	if objects[h.kind+" "+h.name] == nil {
		return nil
	}
	old := find(objects, h.place)
	if old == nil {
		if h.optional {
			return nil
		}
		return fmt.Errorf("%s %s has no %v", h.kind, h.name, h.path)
	}
	var with any = h.token()
	if h.item {
		base, err := build(plain)
		if err != nil {
			return err
		}
		list, ok := find(base, h.place).([]any)
		if !ok {
			list = old.([]any)
		}
		n := len(list)
		with = slices.Insert(slices.Clone(old.([]any)), n, with)
	}
	last := len(h.path) - 1
	switch parent := find(objects, place{h.kind, h.name, h.path[:last]}).(type) {
	case map[string]any:
		parent[h.path[last].(string)] = with
	case []any:
		parent[h.path[last].(int)] = with
	}
	return nil
}

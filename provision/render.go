package provision

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	rolenamespace "github.com/dexorder/agent-lifecycle/manifests/role-namespace"
)

// Rendered is a role agent's namespace and what is in it.
type Rendered struct {
	Role Role

	// Namespace is its name.
	Namespace string

	// Objects are in the order to apply them, the namespace first.
	Objects []*unstructured.Unstructured
}

// Render makes the objects of a role's namespace. It asks no cluster.
func Render(role Role) (*Rendered, error) {
	if err := role.check(); err != nil {
		return nil, err
	}
	objects, err := build(&role)
	if err != nil {
		return nil, err
	}
	r := &Rendered{Role: role, Objects: objects}
	if err := errors.Join(r.order(), r.identify()); err != nil {
		return nil, err
	}
	if role.Image != "" {
		if err := setAgentImage(r.Objects, role.Image); err != nil {
			return nil, fmt.Errorf("image %s: %w", role.Image, err)
		}
	}
	return r, nil
}

// Components lists those of the template.
func Components() []string {
	entries, err := fs.ReadDir(rolenamespace.Files, "components")
	if err != nil {
		return nil // it is part of the program
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// build runs kustomize on the role's own kustomization, or on one that puts the template into the role's namespace.
func build(role *Role) ([]*unstructured.Unstructured, error) {
	files, dir := filesys.MakeFsOnDisk(), role.Dir
	if dir == "" {
		files, dir = filesys.MakeFsInMemory(), "/role"
		if err := compose(files, dir, role); err != nil {
			return nil, err
		}
	}
	found, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(files, dir)
	if err != nil {
		return nil, fmt.Errorf("kustomize: %w", err)
	}
	var objects []*unstructured.Unstructured
	for _, resource := range found.Resources() {
		// By JSON, whose numbers are those that clients of the API know.
		content, err := resource.MarshalJSON()
		object := &unstructured.Unstructured{}
		if err == nil {
			err = object.UnmarshalJSON(content)
		}
		if err != nil {
			return nil, fmt.Errorf("kustomize: %s: %w", resource.CurId(), err)
		}
		objects = append(objects, object)
	}
	return objects, nil
}

// compose writes the template into a file system of its own, and a kustomization above it.
func compose(files filesys.FileSystem, dir string, role *Role) error {
	err := fs.WalkDir(rolenamespace.Files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(rolenamespace.Files, name)
		if err != nil {
			return err
		}
		return files.WriteFile(path.Join("/template", name), content)
	})
	if err != nil {
		return err
	}
	k := types.Kustomization{Namespace: role.namespace(), Resources: []string{"../template/base"}}
	for _, component := range role.Components {
		if !slices.Contains(Components(), component) {
			return fmt.Errorf("component %q: accepted are %s", component, strings.Join(Components(), ", "))
		}
		k.Components = append(k.Components, path.Join("../template/components", component))
	}
	content, err := yaml.Marshal(k)
	if err != nil {
		return err
	}
	return files.WriteFile(path.Join(dir, "kustomization.yaml"), content)
}

// order sees to it that there is one namespace, and nothing but what belongs into one.
func (r *Rendered) order() error {
	var errs []error
	var namespaces []string
	for _, o := range r.Objects {
		switch {
		case o.GetKind() == "Secret":
			errs = append(errs, fmt.Errorf("%s: Secrets are named by what uses them, and made by somebody else: leave it out", nameOf(o)))
		case rank(o) < 0:
			errs = append(errs, fmt.Errorf("%s of %s: accepted are %s", nameOf(o), o.GetAPIVersion(), kindNames()))
		case o.GetKind() == kindNamespace:
			namespaces = append(namespaces, o.GetName())
		}
	}
	if len(namespaces) != 1 {
		errs = append(errs, fmt.Errorf("there are %d namespaces (%s): accepted is one", len(namespaces), strings.Join(namespaces, ", ")))
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	r.Namespace = namespaces[0]
	for _, o := range r.Objects {
		if o.GetKind() != kindNamespace && o.GetNamespace() != r.Namespace {
			errs = append(errs, fmt.Errorf("%s: metadata.namespace is %q, and must be %s", nameOf(o), o.GetNamespace(), r.Namespace))
		}
	}
	slices.SortStableFunc(r.Objects, func(a, b *unstructured.Unstructured) int { return rank(a) - rank(b) })
	return errors.Join(errs...)
}

// identify writes whose namespace it is.
func (r *Rendered) identify() error {
	if r.Namespace == "" {
		return nil // which order has said
	}
	if !strings.HasPrefix(r.Namespace, lifecycle.RoleNamespacePrefix) || r.Namespace == lifecycle.RoleNamespacePrefix {
		return fmt.Errorf("namespace %q: the name of a role agent's namespace starts with %q", r.Namespace, lifecycle.RoleNamespacePrefix)
	}
	namespace := r.Objects[0]
	labels := namespace.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	// A kustomization of one's own says which role it is of. That is not put right: it would be another agent's namespace.
	if r.Role.Dir != "" && labels[lifecycle.LabelAgentRole] != r.Role.Name {
		return fmt.Errorf("namespace %s: its label %s is %q in %s, and not %q", r.Namespace, lifecycle.LabelAgentRole,
			labels[lifecycle.LabelAgentRole], r.Role.Dir, r.Role.Name)
	}
	labels[lifecycle.LabelAgentRole] = r.Role.Name
	for key, value := range map[string]*string{lifecycle.LabelOrg: &r.Role.Org, lifecycle.LabelEnvironment: &r.Role.Environment} {
		if *value == "" {
			*value = labels[key]
		}
		if *value == "" {
			return fmt.Errorf("namespace %s: it has no label %s in %s; say it there, or by a flag", r.Namespace, key, r.Role.Dir)
		}
		labels[key] = *value
	}
	namespace.SetLabels(labels)
	return r.Role.check()
}

// YAML is what would be applied, as a stream of documents.
func (r *Rendered) YAML() ([]byte, error) {
	var stream []byte
	for i, o := range r.Objects {
		document, err := yaml.Marshal(o.Object)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", nameOf(o), err)
		}
		if i > 0 {
			stream = append(stream, "---\n"...)
		}
		stream = append(stream, document...)
	}
	return stream, nil
}

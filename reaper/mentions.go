package reaper

import (
	"path"
	"regexp"

	corev1 "k8s.io/api/core/v1"
)

// mentions are the names that objects of a namespace and of the cluster mention, as far as they are names of leftovers.
type mentions struct {
	names map[string]bool

	// makers are the names of custom objects, some of which make Pods.
	makers makers

	// unknown says what could not be read, so that everything counts as mentioned; "" if all could.
	unknown string

	// granted says that objects of other namespaces may refer to those of this one.
	granted bool
}

// has says whether something mentions the name of an object. A mention does not always tell which kind it means. Nil
// knows of nothing.
func (m *mentions) has(name string) bool {
	return m != nil && (m.names[name] || m.granted)
}

// nameTemplate is a name in the parameters of a StorageClass: what is in braces is filled in for each claim.
var nameTemplate = regexp.MustCompile(`\$\{([a-z.]+)(?:\['([^']+)'\])?\}`)

// secretsOf returns what a template stands for where a claim is concerned: a pattern for path.Match, since not all of
// it may be known.
func secretsOf(template string, claim *corev1.PersistentVolumeClaim) string {
	return nameTemplate.ReplaceAllStringFunc(template, func(part string) string {
		filled := ""
		switch found := nameTemplate.FindStringSubmatch(part); found[1] {
		case "pvc.name":
			filled = claim.Name
		case "pvc.namespace":
			filled = claim.Namespace
		case "pvc.annotations":
			filled = claim.Annotations[found[2]]
		case "pv.name":
			filled = claim.Spec.VolumeName
		}
		if filled == "" {
			return "*"
		}
		return filled
	})
}

// mentionedByTemplate says whether a template stands for a Secret where one of the claims is concerned.
func mentionedByTemplate(name string, templates []string, claims []*corev1.PersistentVolumeClaim) bool {
	for _, template := range templates {
		for _, claim := range claims {
			if is, err := path.Match(secretsOf(template, claim), name); is || err != nil {
				return true
			}
		}
	}
	return false
}

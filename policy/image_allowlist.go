package policy

import (
	"fmt"

	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// Every image comes from the profile's list: of init, ordinary and ephemeral containers, and of image volumes, in
// templates and in Pods, also when it is patched on a running Pod. What does not parse as a reference is not on the
// list. The sidecar may have the sidecar's own images beside those of the list.
var imageAllowlist = Rule{
	ID:          "image-allowlist",
	Summary:     "images come from the list of allowed ones",
	enforcement: func(r *v1alpha1.Rules) v1alpha1.Enforcement { return r.ImageAllowlist.Enforcement },
	applies:     podsChange,
	check:       checkImages,
}

func checkImages(p *Profile, r *Request) []Violation {
	var found []Violation
	for _, c := range r.Object.Template.Containers() {
		if isSidecar(r, c) && p.sidecars.Allows(c.Image) == nil {
			continue
		}
		if full(found) {
			return found
		}
		if err := p.images.Allows(c.Image); err != nil {
			found = append(found, violation(c.Path()+".image", "container %q: %v", c.Name, err))
		}
	}
	for i, volume := range r.Object.Template.Spec.Volumes {
		if full(found) {
			return found
		}
		if volume.Image == nil {
			continue
		}
		if err := p.images.Allows(volume.Image.Reference); err != nil {
			field := fmt.Sprintf("%s[%d].image.reference", r.Object.Template.Field("spec.volumes"), i)
			found = append(found, violation(field, "volume %q: %v", volume.Name, err))
		}
	}
	return found
}

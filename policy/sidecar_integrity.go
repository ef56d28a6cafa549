package policy

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/inject"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/workload"
)

// What is injected arrives whole and stays so: one sidecar, as the policy makes it or as it was admitted earlier; its
// volumes; the shared PID namespace; the agent's mount and environment; and nobody else at the sidecar's token or in
// the directory where the agent leaves its exit code.
//
// In a Deployment the sidecar must be equal to the policy's, but for its image, which may be any accepted one; or to the
// stored one if that has an accepted image. A Pod's must contain the policy's or its Deployment's, and may have any accepted
// image, too: LimitRanger and service meshes add fields there, and others rewrite images to a mirror's. On a running Pod it does not change at all.
//
// What the user wrote is refused where an injected part cannot be beside it: hostPID, a block device in the place of
// a mount, resources of the Pod as a whole that leave no room for the sidecar.
//
// Where agents get no sidecar there is none, but in Pods of Deployments that were admitted with one; and in Pods of those that
// were admitted without, there need be none.
var sidecarIntegrity = Rule{
	ID:          "sidecar-integrity",
	Summary:     "the injected parts are whole, and nothing reaches into them",
	enforcement: func(r *v1alpha1.Rules) v1alpha1.Enforcement { return r.SidecarIntegrity.Enforcement },
	applies:     func(r *Request) bool { return podsChange(r) && isAgent(r) },
	check:       checkSidecarIntegrity,
}

func checkSidecarIntegrity(p *Profile, r *Request) []Violation {
	userType := lifecycle.UserType(r.Object.Meta.Labels[lifecycle.LabelUserType])
	c := &integrityCheck{profile: p, request: r, template: r.Object.Template, parts: p.injector.Parts(userType), agent: -1}
	if c.ownerHasNone() {
		c.parts = c.parts.WithoutSidecar()
	}
	if isDeployment(r) {
		if i, err := workload.AgentContainer(&r.Object.Deployment.Spec.Template); err == nil {
			c.agent = i
		}
	}
	c.sidecar()
	c.volumes()
	c.processNamespace()
	c.agentContainer()
	for _, container := range c.template.Containers() {
		if full(c.found) {
			break
		}
		c.reach(container)
	}
	return c.found
}

type integrityCheck struct {
	profile  *Profile
	request  *Request
	template *workload.Template
	parts    inject.Parts
	found    []Violation

	// agent is the index of the agent container, -1 where it is not known.
	agent int
}

func (c *integrityCheck) add(field, format string, args ...any) {
	c.found = append(c.found, violation(field, format, args...))
}

func (c *integrityCheck) sidecar() {
	var sidecars []workload.Container
	for _, container := range c.template.Containers() {
		if container.Name != lifecycle.SidecarContainer {
			continue
		}
		if full(c.found) {
			return
		}
		if container.Sort != workload.Ordinary {
			c.add(container.Path(), "the name %q is the system's; use another", container.Name)
			continue
		}
		sidecars = append(sidecars, container)
	}
	stored := storedSidecar(c.request)
	if running := c.request.Object.Kind == kindPod && stored != nil; !c.parts.HasSidecar() && !running {
		if len(sidecars) > 0 && !(c.request.Object.Kind == kindPod && len(sidecars) == 1 && c.isOwners(sidecars[0].Container)) {
			c.add(c.template.Field("spec.containers"), "must not have the container %q: agents get none here", lifecycle.SidecarContainer)
		}
		return
	}
	if conflicts := inject.SidecarConflicts(c.template.Spec, &c.parts.Sidecar); len(sidecars) == 0 && len(conflicts) > 0 {
		c.conflicts(conflicts)
		return
	}
	if len(sidecars) != 1 {
		c.add(c.template.Field("spec.containers"), "must have the container %q once, has it %d times",
			lifecycle.SidecarContainer, len(sidecars))
		return
	}
	got := sidecars[0]
	switch {
	case c.request.Object.Kind == kindPod && stored != nil:
		if !workload.Equal(got.Container, stored) {
			c.add(got.Path(), "the sidecar of a running Pod may not change: %s", firstDifference(got.Container, stored))
		}
	case c.request.Object.Kind == kindPod:
		want := c.withAcceptedImage(&c.parts.Sidecar, got.Container)
		if !contains(got.Container, want) && !c.isOwners(got.Container) {
			c.add(got.Path(), "is not the sidecar that is injected here: %s", firstDifference(got.Container, want))
		}
	case workload.Equal(got.Container, &c.parts.Sidecar):
	case stored != nil && c.profile.sidecars.Allows(stored.Image) == nil && workload.Equal(got.Container, stored):
	default:
		if difference := firstDifference(got.Container, c.sidecarLike(got.Container)); difference != "" {
			c.add(got.Path(), "is not the sidecar that is injected here: %s", difference)
		}
	}
}

// sidecarLike is the policy's sidecar with what differs from policy to policy: the image of another one, if that is
// accepted, and its resources, which the resource-limits rule judges. A new policy reaches the servers one after the
// other, so that meanwhile one injects by it and another one judges by the one before.
func (c *integrityCheck) sidecarLike(got *corev1.Container) *corev1.Container {
	want := c.withAcceptedImage(&c.parts.Sidecar, got)
	want.Resources = got.Resources
	return want
}

// withAcceptedImage returns a copy of a sidecar with the image of another one, if that is accepted. Who rewrites images to
// those of a mirror does so in Deployments or in Pods.
func (c *integrityCheck) withAcceptedImage(sidecar, got *corev1.Container) *corev1.Container {
	want := *sidecar
	if c.profile.sidecars.Allows(got.Image) == nil {
		want.Image = got.Image
	}
	return &want
}

// isOwners says whether a Pod's sidecar is the one that its Deployment was admitted with.
func (c *integrityCheck) isOwners(got *corev1.Container) bool {
	if c.request.Facts == nil || c.request.Facts.Owner == nil || c.profile.predates(c.request.Facts.Owner) {
		return false
	}
	owners := c.request.Facts.Owner.Sidecar
	return owners != nil && c.profile.sidecars.Allows(owners.Image) == nil && contains(got, c.withAcceptedImage(owners, got))
}

// ownerHasNone says whether a Pod's Deployment was admitted when agents got no sidecar. It has the volume that is injected in any case.
func (c *integrityCheck) ownerHasNone() bool {
	if c.request.Object.Kind != kindPod || ownerKind(c.request) != kindDeployment || c.profile.predates(c.request.Facts.Owner) {
		return false
	}
	owner := c.request.Facts.Owner
	return owner.Sidecar == nil && containsVolume(owner.Volumes, &c.parts.Volumes[0])
}

func storedSidecar(r *Request) *corev1.Container {
	if r.Old == nil {
		return nil
	}
	for _, container := range r.Old.Template.Containers() {
		if container.Name == lifecycle.SidecarContainer && container.Sort == workload.Ordinary {
			return container.Container
		}
	}
	return nil
}

func (c *integrityCheck) volumes() {
	for _, want := range c.parts.Volumes {
		found := false
		for i := range c.template.Spec.Volumes {
			if full(c.found) {
				return
			}
			volume := &c.template.Spec.Volumes[i]
			if volume.Name != want.Name {
				continue
			}
			found = true
			if !c.profile.isInjected(c.request, volume) {
				c.add(fmt.Sprintf("%s[%d]", c.template.Field("spec.volumes"), i),
					"volume %q is not the one that is injected; leave it out", volume.Name)
			}
		}
		if !found {
			c.add(c.template.Field("spec.volumes"), "volume %q is missing", want.Name)
		}
	}
}

func (c *integrityCheck) conflicts(conflicts []inject.Conflict) {
	for _, conflict := range conflicts {
		c.add(c.template.Field("spec."+conflict.Field), "%s", conflict.Message)
	}
}

func (c *integrityCheck) processNamespace() {
	if conflict := inject.ProcessNamespaceConflict(c.template.Spec); c.parts.HasSidecar() && conflict != nil {
		c.conflicts([]inject.Conflict{*conflict})
		return
	}
	if share := c.template.Spec.ShareProcessNamespace; c.parts.HasSidecar() && (share == nil || !*share) {
		c.add(c.template.Field("spec.shareProcessNamespace"), "%s, must be true: the sidecar watches the agent's process",
			isValue(share))
	}
}

// agentContainer holds the agent's environment and mount to what its tier gives it, or to what was admitted earlier.
func (c *integrityCheck) agentContainer() {
	if c.agent < 0 {
		return
	}
	agent := &c.template.Spec.Containers[c.agent]
	field := fmt.Sprintf("%s[%d]", c.template.Field("spec.containers"), c.agent)
	// An agent may lack what comes with the gateway's key: it is older than the key, or was admitted by an older server.
	optional := inject.ActivityEnv()
	for i, env := range slices.Concat(c.parts.AgentEnv, optional) {
		want, times, reason := &env, 0, "as the agent's tier has it"
		if i >= len(c.parts.AgentEnv) {
			reason = "as it is injected"
		}
		var got *corev1.EnvVar
		for j := range agent.Env {
			if agent.Env[j].Name == want.Name {
				got = &agent.Env[j]
				times++
			}
		}
		switch {
		case times == 0 && i >= len(c.parts.AgentEnv):
		case times != 1:
			c.add(field+".env", "container %q must have %s once, has it %d times", agent.Name, want.Name, times)
		case want.ValueFrom == nil && got.ValueFrom == nil:
			// Which value a tier has may be another server's, or an earlier, policy; see sidecarLike.
		case !workload.Equal(got, want) && !c.isStoredEnv(agent.Name, *got):
			c.add(field+".env", "container %q: %s is %s, must be %s %s", agent.Name, want.Name,
				envValue(*got), envValue(*want), reason)
		}
	}
	for i := range agent.VolumeMounts {
		if workload.Equal(&agent.VolumeMounts[i], &c.parts.AgentMount) {
			return
		}
	}
	if inject.DeviceInPlaceOfMount(agent) {
		return // Refused by what follows.
	}
	c.add(field+".volumeMounts", "container %q must mount volume %q at %s", agent.Name, lifecycle.RunVolume, lifecycle.RunDir)
}

func envValue(env corev1.EnvVar) string {
	switch from := env.ValueFrom; {
	case from == nil:
		return fmt.Sprintf("%q", env.Value)
	case from.FieldRef != nil:
		return fmt.Sprintf("that of field %q", from.FieldRef.FieldPath)
	default:
		return "taken from elsewhere"
	}
}

func (c *integrityCheck) isStoredEnv(container string, env corev1.EnvVar) bool {
	if c.request.Old == nil {
		return false
	}
	for _, stored := range c.request.Old.Template.Spec.Containers {
		if stored.Name != container {
			continue
		}
		for _, e := range stored.Env {
			if workload.Equal(&e, &env) {
				return true
			}
		}
	}
	return false
}

// reach refuses what would let a container at the sidecar's token, or let another than the agent write where the agent
// leaves its exit code: a mount of the volumes, a mount over the directory, the kubelet's termination message there.
func (c *integrityCheck) reach(container workload.Container) {
	if container.Name == lifecycle.SidecarContainer && container.Sort == workload.Ordinary {
		return
	}
	for i := range container.VolumeMounts {
		if full(c.found) {
			return
		}
		mount := &container.VolumeMounts[i]
		field := func() string { return fmt.Sprintf("%s.volumeMounts[%d]", container.Path(), i) }
		switch {
		case mount.Name == lifecycle.TokenVolume:
			c.add(field(), "container %q may not mount volume %q: it is the sidecar's", container.Name, mount.Name)
		case mount.Name == lifecycle.RunVolume:
			switch {
			case !c.mayBeAgent(container):
				c.add(field(), "container %q may not mount volume %q: it is the agent container's", container.Name, mount.Name)
			case !workload.Equal(mount, &c.parts.AgentMount):
				c.add(field(), "container %q may mount volume %q only at %s, writable and as a whole",
					container.Name, mount.Name, lifecycle.RunDir)
			}
		case inRunDir(mount.MountPath):
			c.add(field()+".mountPath", "container %q: volume %q is at %q, must be outside of %s",
				container.Name, mount.Name, mount.MountPath, lifecycle.RunDir)
		}
	}
	for i, device := range container.VolumeDevices {
		if full(c.found) {
			return
		}
		switch {
		case device.Name == lifecycle.RunVolume || device.Name == lifecycle.TokenVolume:
			c.add(fmt.Sprintf("%s.volumeDevices[%d].name", container.Path(), i),
				"container %q: the volume name %q is the system's; use another", container.Name, device.Name)
		case inRunDir(device.DevicePath):
			c.add(fmt.Sprintf("%s.volumeDevices[%d].devicePath", container.Path(), i),
				"container %q: volume %q is at %q, must be outside of %s", container.Name, device.Name, device.DevicePath, lifecycle.RunDir)
		}
	}
	if inRunDir(container.TerminationMessagePath) {
		c.add(container.Path()+".terminationMessagePath", "container %q: is %q, must be outside of %s",
			container.Name, container.TerminationMessagePath, lifecycle.RunDir)
	}
}

// mayBeAgent says whether the container can be the agent's. A Pod does not say which one is: there it may be any
// ordinary one, as its template was judged.
func (c *integrityCheck) mayBeAgent(container workload.Container) bool {
	if c.agent >= 0 {
		return container.Container == &c.template.Spec.Containers[c.agent]
	}
	return container.Sort == workload.Ordinary
}

// inRunDir says whether a path is the run directory or below it. /var/run is a link to /run in most images.
func inRunDir(p string) bool {
	p = path.Clean("/" + p)
	for _, dir := range []string{lifecycle.RunDir, strings.TrimPrefix(lifecycle.RunDir, "/var")} {
		if p == dir || strings.HasPrefix(p, dir+"/") {
			return true
		}
	}
	return false
}

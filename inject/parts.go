package inject

import (
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/workload"
)

// Parts are what belongs into an agent's Pod under names of the system. Every field that the API server would default
// is set, so that parts compare equal to what it stores. They are shared: nobody may change what they point to.
type Parts struct {
	userType lifecycle.UserType

	// Sidecar has no name where agents get none.
	Sidecar corev1.Container
	Volumes []corev1.Volume

	// AgentMount and AgentEnv are the agent container's.
	AgentMount corev1.VolumeMount
	AgentEnv   []corev1.EnvVar

	// RestartRules are the agent container's, under restartPolicy Never; empty where it gets none.
	RestartRules []corev1.ContainerRestartRule

	// keepServiceLinks leaves enableServiceLinks as it is: the stored Deployment was admitted before it was set to false.
	keepServiceLinks bool

	// keepAgentContainer leaves it at what a stored Deployment's template says of which container runs the agent.
	keepAgentContainer bool

	// keepPodUser leaves the Pod's user where a stored Deployment has one, which was admitted before it was moved.
	keepPodUser bool
}

// newParts returns the parts that the policy asks for today.
func newParts(config *Config, t lifecycle.UserType, restartRules bool) Parts {
	p := Parts{
		userType:   t,
		Sidecar:    sidecarContainer(config.Sidecar),
		Volumes:    []corev1.Volume{runVolume(), tokenVolume()},
		AgentMount: corev1.VolumeMount{Name: lifecycle.RunVolume, MountPath: lifecycle.RunDir},
	}
	tier, ok := config.Tiers[t]
	if ok {
		p.AgentEnv = agentEnv(tier, config.Idle)
	}
	if config.Sidecar.Mode == v1alpha1.SidecarNone {
		return p.WithoutSidecar()
	}
	rules := config.RestartRules == v1alpha1.RestartRulesOn ||
		config.RestartRules != v1alpha1.RestartRulesOff && restartRules
	if ok && rules && tier.Shutdown == v1alpha1.ShutdownWhenIdle {
		p.RestartRules = restartUnlessIdle()
	}
	return p
}

// WithoutSidecar returns the parts of an agent that gets no sidecar: nothing that is only for it. The kubelet starts such an agent again
// after 42 as after any exit, and its lifecycle manager holds.
func (p Parts) WithoutSidecar() Parts {
	p.Sidecar, p.RestartRules = corev1.Container{}, nil
	p.Volumes = []corev1.Volume{runVolume()}
	return p
}

// HasSidecar says whether there is one.
func (p *Parts) HasSidecar() bool { return p.Sidecar.Name != "" }

// asAccepted returns the parts as they stand in a stored Deployment, which was admitted with them; p where it has none
// that can be ours.
func (p Parts) asAccepted(stored *appsv1.Deployment, acceptsSidecar func(image string) bool) Parts {
	spec := &stored.Spec.Template.Spec
	p.keepAgentContainer, p.keepPodUser = true, true
	p.keepServiceLinks = spec.EnableServiceLinks == nil || *spec.EnableServiceLinks
	if stored.Labels[lifecycle.LabelUserType] != string(p.userType) {
		return p
	}
	i := containerIndex(spec.Containers, lifecycle.SidecarContainer)
	switch {
	case i < 0 && volumeIndex(spec.Volumes, lifecycle.RunVolume) >= 0: // admitted when agents got none
		p = p.WithoutSidecar()
	case i < 0 || !acceptsSidecar(spec.Containers[i].Image):
		return p
	default:
		p.Sidecar = spec.Containers[i]
		p.Volumes = []corev1.Volume{runVolume(), tokenVolume()}
	}
	for i := range p.Volumes {
		if j := volumeIndex(spec.Volumes, p.Volumes[i].Name); j >= 0 {
			p.Volumes[i] = spec.Volumes[j]
		}
	}
	agent, err := workload.AgentContainer(&stored.Spec.Template)
	if err != nil {
		return p
	}
	c := &spec.Containers[agent]
	env := make([]corev1.EnvVar, 0, len(p.AgentEnv))
	for _, want := range p.AgentEnv {
		if i := envIndex(c.Env, want.Name); i >= 0 {
			want = c.Env[i]
		}
		env = append(env, want)
	}
	env = append(env, storedActivityEnv(stored)...)
	p.AgentEnv = env
	// Rules of the user's own were not injected, and who takes them out wants them gone.
	p.RestartRules = nil
	if rules := restartUnlessIdle(); workload.Equal(&c.RestartPolicyRules, &rules) {
		p.RestartRules = rules
	}
	return p
}

func sidecarContainer(s v1alpha1.Sidecar) corev1.Container {
	uid := lifecycle.SidecarUID
	security := restricted()
	security.RunAsUser, security.RunAsGroup = &uid, &uid
	return corev1.Container{
		Name:            lifecycle.SidecarContainer,
		Image:           s.Image,
		ImagePullPolicy: corev1.PullIfNotPresent,
		Env: []corev1.EnvVar{
			fieldEnv(lifecycle.EnvNamespace, "metadata.namespace"),
			labelEnv(lifecycle.EnvDeploymentName, lifecycle.LabelDeployment),
			labelEnv(lifecycle.EnvUserType, lifecycle.LabelUserType),
			fieldEnv(lifecycle.EnvPodName, "metadata.name"),
			fieldEnv(lifecycle.EnvPodUID, "metadata.uid"),
		},
		Resources: s.Resources,
		VolumeMounts: []corev1.VolumeMount{
			{Name: lifecycle.RunVolume, MountPath: lifecycle.RunDir, ReadOnly: true},
			{Name: lifecycle.TokenVolume, MountPath: lifecycle.TokenDir, ReadOnly: true},
		},
		TerminationMessagePath:   corev1.TerminationMessagePathDefault,
		TerminationMessagePolicy: corev1.TerminationMessageReadFile,
		SecurityContext:          security,
	}
}

// runVolume is on disk, so that an exit code written there outlives a reboot of the node.
func runVolume() corev1.Volume {
	size := resource.MustParse("1Mi")
	return corev1.Volume{Name: lifecycle.RunVolume, VolumeSource: corev1.VolumeSource{
		EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &size},
	}}
}

// tokenVolume holds what Kubernetes itself would mount, with a token that is bound to the Pod. It is world-readable
// because the kubelet gives files of a Pod with several user IDs to root; only the sidecar mounts it.
func tokenVolume() corev1.Volume {
	mode, expiry := int32(0o444), int64(3600)
	return corev1.Volume{Name: lifecycle.TokenVolume, VolumeSource: corev1.VolumeSource{
		Projected: &corev1.ProjectedVolumeSource{DefaultMode: &mode, Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: &expiry}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"},
				Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{
				Path:     "namespace",
				FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"},
			}}}},
		}},
	}}
}

func agentEnv(tier v1alpha1.Tier, idle v1alpha1.Idle) []corev1.EnvVar {
	return []corev1.EnvVar{
		labelEnv(lifecycle.EnvUserType, lifecycle.LabelUserType),
		{Name: lifecycle.EnvEnableIdleShutdown, Value: strconv.FormatBool(tier.Shutdown == v1alpha1.ShutdownWhenIdle)},
		{Name: lifecycle.EnvIdleTimeoutMinutes, Value: units(time.Minute, tier.IdleTimeout)},
		{Name: lifecycle.EnvIdleCheckIntervalSeconds, Value: units(time.Second, idle.CheckInterval)},
		{Name: lifecycle.EnvIdleWarningSeconds, Value: units(time.Second, idle.Warning)},
		{Name: lifecycle.EnvIdleSnoozeMaxMinutes, Value: units(time.Minute, idle.SnoozeMax)},
		{Name: lifecycle.EnvIdleGraceSeconds, Value: units(time.Second, idle.Grace)},
	}
}

// units writes a duration in units, with as many decimals as it takes.
func units(unit time.Duration, d metav1.Duration) string {
	return strconv.FormatFloat(float64(d.Duration)/float64(unit), 'f', -1, 64)
}

// restartUnlessIdle makes the kubelet start the container again after every exit but the idle one (KEP-5307).
func restartUnlessIdle() []corev1.ContainerRestartRule {
	return []corev1.ContainerRestartRule{{
		Action: corev1.ContainerRestartRuleActionRestart,
		ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{
			Operator: corev1.ContainerRestartRuleOnExitCodesOpNotIn,
			Values:   []int32{lifecycle.ExitIdle},
		},
	}}
}

// restricted is the security context of a container under the restricted Pod Security Standard, with a read-only root
// file system.
func restricted() *corev1.SecurityContext {
	yes, no := true, false
	return &corev1.SecurityContext{
		AllowPrivilegeEscalation: &no,
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		ReadOnlyRootFilesystem:   &yes,
		RunAsNonRoot:             &yes,
		SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

func fieldEnv(name, fieldPath string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: fieldPath},
	}}
}

func labelEnv(name, label string) corev1.EnvVar {
	return fieldEnv(name, "metadata.labels['"+label+"']")
}

func containerIndex(containers []corev1.Container, name string) int {
	for i := range containers {
		if containers[i].Name == name {
			return i
		}
	}
	return -1
}

func envIndex(env []corev1.EnvVar, name string) int {
	for i := range env {
		if env[i].Name == name {
			return i
		}
	}
	return -1
}

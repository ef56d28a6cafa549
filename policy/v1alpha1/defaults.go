package v1alpha1

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/image"
)

// Defaults that other packages or the schema need not know.
const (
	defaultGateway = "system:serviceaccount:dexorder-system:gateway"
	defaultAdmins  = "system:masters"
	defaultReaper  = "system:serviceaccount:dexorder-system:lifecycle-webhook"

	defaultPodSecurityLevel   = "restricted"
	defaultPodSecurityVersion = "v1.36"
)

// builtIn holds the defaults that depend on nothing else in the file. A file is read over it: what the file sets stays
// set, zero durations included.
func builtIn() *LifecyclePolicy {
	return &LifecyclePolicy{
		Sidecar: Sidecar{Mode: SidecarInject, Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{
				corev1.ResourceCPU:    resource.MustParse("1m"),
				corev1.ResourceMemory: resource.MustParse("16Mi"),
			},
			Limits: corev1.ResourceList{
				corev1.ResourceCPU:    resource.MustParse("100m"),
				corev1.ResourceMemory: resource.MustParse("32Mi"),
			},
		}},
		Tiers: map[lifecycle.UserType]Tier{
			lifecycle.Anonymous:  {Shutdown: ShutdownWhenIdle, IdleTimeout: duration(15 * time.Minute), Storage: StorageDelete},
			lifecycle.Free:       {Shutdown: ShutdownWhenIdle, IdleTimeout: duration(15 * time.Minute), Storage: StorageKeep},
			lifecycle.Paid:       {Shutdown: ShutdownWhenIdle, IdleTimeout: duration(60 * time.Minute), Storage: StorageKeep},
			lifecycle.Enterprise: {Shutdown: ShutdownNever, Storage: StorageKeep},
		},
		Idle: Idle{
			CheckInterval: duration(time.Minute),
			Warning:       duration(time.Minute),
			SnoozeMax:     duration(time.Hour),
			Grace:         duration(10 * time.Second),
		},
		RestartRules: RestartRulesAuto,
		SelfDelete: SelfDelete{
			ProofWindow:     duration(time.Minute),
			MinimumLifetime: duration(10 * time.Second),
			Breaker:         Breaker{Burst: 60, PerMinute: 30},
		},
		Reaper: builtInReaper(),
		Identities: Identities{
			Gateway:     defaultGateway,
			Reapers:     []string{defaultReaper, "system:serviceaccount:dexorder-system:lifecycle-reaper"},
			Controllers: defaultControllers(),
		},
	}
}

func duration(d time.Duration) metav1.Duration { return metav1.Duration{Duration: d} }

func builtInReaper() Reaper {
	return Reaper{
		Interval:    duration(time.Minute),
		Sightings:   2,
		Parallelism: 4,
		Cap:         Cap{Count: 50, Percent: 25},
		Namespaces: NamespaceReaper{
			Mode: ReaperDelete, IdleAfter: duration(time.Hour), UnhealthyAfter: duration(20 * time.Minute),
		},
		Agents:    AgentReaper{Mode: ReaperDelete, After: duration(2 * time.Minute)},
		Claims:    ClaimReaper{Mode: ReaperDelete, After: duration(10 * time.Minute)},
		Leftovers: LeftoverReaper{Mode: ReaperDelete, After: duration(time.Hour), FinishedJobs: duration(time.Hour)},
		Drift:     Drift{Mode: DriftReport, Interval: duration(15 * time.Minute)},
	}
}

func defaultControllers() []string {
	users := make([]string, 0, 8)
	for _, controller := range []string{
		"deployment-controller", "replicaset-controller", "statefulset-controller", "daemon-set-controller",
		"job-controller", "cronjob-controller", "replication-controller",
	} {
		users = append(users, "system:serviceaccount:kube-system:"+controller)
	}
	return append(users, "system:kube-controller-manager")
}

// setDefaults fills in what is absent and depends on the rest of the file. A list that is present stays as it is, even
// if it is empty.
func setDefaults(file *LifecyclePolicy) {
	if file.Sidecar.AcceptedImages == nil {
		if ref, err := image.Parse(file.Sidecar.Image); err == nil {
			file.Sidecar.AcceptedImages = []string{ref.Repository()}
		}
	}
	if editors := &file.Identities.TierEditors; editors.Users == nil && editors.Groups == nil {
		editors.Users = []string{file.Identities.Gateway}
		editors.Groups = []string{defaultAdmins}
	}
	setDefault(&file.RulesRevision, firstRulesRevision)
	for i := range file.Profiles {
		setProfileDefaults(&file.Profiles[i], file.RulesRevision)
	}
}

func setProfileDefaults(p *Profile, revision int32) {
	setDefault(&p.DefaultUserType, lifecycle.Free)
	setDefault(&p.Adoption, AdoptionWarn)

	r := &p.Rules
	for _, rule := range r.all() {
		setDefault(&rule.Enforcement, rule.defaultEnforcement(revision))
	}

	setDefault(&r.PodSecurity.Level, defaultPodSecurityLevel)
	setDefault(&r.PodSecurity.Version, defaultPodSecurityVersion)

	setDefaultList(&r.ResourceLimits.Limits, corev1.ResourceCPU, corev1.ResourceMemory)
	setDefaultList(&r.ResourceLimits.Requests, corev1.ResourceCPU, corev1.ResourceMemory)

	setDefaultList(&r.Volumes.Types, "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image",
		"persistentVolumeClaim", "projected", "secret")
	setDefaultList(&r.Volumes.Claims, Placeholder+"-data")

	setDefaultList(&r.References.Secrets, Placeholder+"-secrets")
	setDefaultList(&r.References.ConfigMaps, Placeholder+"-config")

	if r.Replicas.Max == nil {
		r.Replicas.Max = new(int32(1))
	}

	setDefaultList(&r.ServiceAccounts.Names, p.accountOrAny())
	if r.ServiceAccounts.MountToken == nil {
		r.ServiceAccounts.MountToken = new(p.ServiceAccount.MountToken == nil || *p.ServiceAccount.MountToken)
	}

	setDefaultList(&r.WorkloadKind.Kinds, "Deployment")

	setDefaultBound(&r.ObjectSize.MaxContainers, 100)
	setDefaultBound(&r.ObjectSize.MaxVolumes, 100)
	setDefaultBound(&r.ObjectSize.MaxEnv, 1000)
	setDefaultBound(&r.ObjectSize.MaxVolumeMounts, 1000)
}

func setDefaultBound(field **int32, value int32) {
	if *field == nil {
		*field = &value
	}
}

func (p *Profile) accountOrAny() string {
	if p.ServiceAccount.Name == "" {
		return Any
	}
	return p.ServiceAccount.Name
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func setDefaultList[T any](list *[]T, values ...T) {
	if *list == nil {
		*list = values
	}
}

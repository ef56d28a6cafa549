package manifests

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	psaapi "k8s.io/pod-security-admission/api"
	psapolicy "k8s.io/pod-security-admission/policy"
)

// ownReaper says whether the reaper runs by itself, and not in the server.
func (in installed) ownReaper() bool {
	return slices.Contains(in.deployment.Spec.Template.Spec.Containers[0].Args, "--reaper=false")
}

// reaper is the Pod of the reaper that runs by itself; nil if the server does its work.
func (in installed) reaper(t *testing.T) *corev1.PodTemplateSpec {
	t.Helper()
	var templates []*corev1.PodTemplateSpec
	for _, d := range ofKind[appsv1.Deployment](t, in.objects, "Deployment") {
		if d.Name == "lifecycle-reaper" {
			templates = append(templates, &d.Spec.Template)
		}
	}
	for _, j := range ofKind[batchv1.CronJob](t, in.objects, "CronJob") {
		templates = append(templates, &j.Spec.JobTemplate.Spec.Template)
	}
	if len(templates) == 0 {
		return nil
	}
	if len(templates) > 1 || len(templates[0].Spec.Containers) != 1 {
		t.Fatalf("%d reapers, the first with %d containers, want one with one", len(templates), len(templates[0].Spec.Containers))
	}
	return templates[0]
}

// Somebody reaps in every installation, and nobody beside them.
func TestOneReaper(t *testing.T) {
	forEachInstallation(t, func(t *testing.T, in installed) {
		reaper := in.reaper(t)
		if in.ownReaper() != (reaper != nil) {
			t.Fatalf("the server's loop is off: %v; there is a reaper beside it: %v", in.ownReaper(), reaper != nil)
		}
		if reaper == nil {
			return
		}
		if got := reaper.Spec.ServiceAccountName; got != "lifecycle-reaper" {
			t.Errorf("the reaper runs as %q, want an account of its own", got)
		}
		container := reaper.Spec.Containers[0]
		if got, want := container.Image, in.container(t).Image; got != want {
			t.Errorf("the reaper's image is %s, the server's %s", got, want)
		}
		args := []string{"reap", "--policy=/etc/agent-lifecycle/policy.yaml", "--log-format=json"}
		if in.name == withCronJob {
			args = append(args, "--once")
		}
		for _, arg := range args {
			if !slices.Contains(container.Args, arg) {
				t.Errorf("args %q lack %s", container.Args, arg)
			}
		}
		mount := container.VolumeMounts[0]
		if volume := reaper.Spec.Volumes[0]; mount.MountPath != "/etc/agent-lifecycle" || !mount.ReadOnly || mount.SubPath != "" ||
			mount.Name != volume.Name || volume.ConfigMap == nil || volume.ConfigMap.Name != "lifecycle-policy" {
			t.Errorf("the policy is mounted as %v from %v", mount, volume)
		}
	})
}

func TestReaperIsRestricted(t *testing.T) {
	evaluator, err := psapolicy.NewEvaluator(psapolicy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	level := psaapi.LevelVersion{Level: psaapi.LevelRestricted, Version: psaapi.MajorMinorVersion(1, 36)}
	reapers := 0
	forEachInstallation(t, func(t *testing.T, in installed) {
		reaper := in.reaper(t)
		if reaper == nil {
			return // the server does its work
		}
		reapers++
		for _, result := range evaluator.EvaluatePod(level, &reaper.ObjectMeta, &reaper.Spec) {
			if !result.Allowed {
				t.Errorf("%s: %s", result.ForbiddenReason, result.ForbiddenDetail)
			}
		}
		container := reaper.Spec.Containers[0]
		if c := container.SecurityContext; c == nil || c.ReadOnlyRootFilesystem == nil || !*c.ReadOnlyRootFilesystem {
			t.Error("the reaper's root file system is writable")
		}
		if container.Resources.Requests.Memory().IsZero() || container.Resources.Limits.Memory().IsZero() {
			t.Errorf("resources %v, want a request and a limit of memory", container.Resources)
		}
	})
	if reapers == 0 {
		t.Error("in no installation the reaper runs by itself")
	}
}

func TestReaperStaysAvailable(t *testing.T) {
	objects := render(t, "overlays/prod")
	deployment := as[appsv1.Deployment](t, one(t, objects, "Deployment", "lifecycle-reaper"))
	if got := deployment.Spec.Replicas; got == nil || *got != 2 {
		t.Errorf("replicas %v, want 2", got)
	}
	container := deployment.Spec.Template.Spec.Containers[0]
	if p := container.ReadinessProbe; p == nil || p.HTTPGet.Path != "/readyz" {
		t.Error("no readiness probe of /readyz")
	}
	if p := container.LivenessProbe; p == nil || p.HTTPGet.Path != "/healthz" {
		t.Error("no liveness probe of /healthz")
	}
	budget := as[policyv1.PodDisruptionBudget](t, one(t, objects, "PodDisruptionBudget", "lifecycle-reaper"))
	if got := budget.Spec.MaxUnavailable; got == nil || got.IntValue() != 1 {
		t.Errorf("the budget lets %v go at a time, want 1", got)
	}
	for _, labels := range []map[string]string{deployment.Spec.Selector.MatchLabels, budget.Spec.Selector.MatchLabels} {
		for key, value := range labels {
			if deployment.Spec.Template.Labels[key] != value {
				t.Errorf("selector %s=%s misses the reaper's Pods, labelled %v", key, value, deployment.Spec.Template.Labels)
			}
		}
	}
}

// A pass that hangs or fails neither piles up nor stops the next ones.
func TestCronJob(t *testing.T) {
	job := as[batchv1.CronJob](t, one(t, render(t, withCronJob), "CronJob", "lifecycle-reaper")).Spec
	if job.Schedule != "*/15 * * * *" || job.ConcurrencyPolicy != batchv1.ForbidConcurrent || job.StartingDeadlineSeconds == nil {
		t.Errorf("schedule %q, concurrencyPolicy %q, startingDeadlineSeconds %v", job.Schedule, job.ConcurrencyPolicy, job.StartingDeadlineSeconds)
	}
	if job.SuccessfulJobsHistoryLimit == nil || job.FailedJobsHistoryLimit == nil {
		t.Error("no history limits")
	}
	one := job.JobTemplate.Spec
	if one.BackoffLimit == nil || *one.BackoffLimit != 0 || one.ActiveDeadlineSeconds == nil ||
		one.Template.Spec.RestartPolicy != corev1.RestartPolicyNever {
		t.Errorf("backoffLimit %v, activeDeadlineSeconds %v, restartPolicy %q", one.BackoffLimit, one.ActiveDeadlineSeconds, one.Template.Spec.RestartPolicy)
	}
}

package v1alpha1

import (
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

func decode(t *testing.T, data string) *LifecyclePolicy {
	t.Helper()
	file, err := Decode([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// diff compares files by what they mean.
func diff(want, got any) string {
	return cmp.Diff(want, got, cmp.Comparer(func(a, b resource.Quantity) bool { return a.Cmp(b) == 0 }))
}

// explicit is minimal with every default written out.
const explicit = `
apiVersion: lifecycle.dexorder.io/v1alpha1
kind: LifecyclePolicy
rulesRevision: 1
sidecar:
  image: ghcr.io/dexorder/lifecycle-sidecar:v0.1.0
  acceptedImages: [ghcr.io/dexorder/lifecycle-sidecar]
  resources: {requests: {cpu: 1m, memory: 16Mi}, limits: {cpu: 100m, memory: 32Mi}}
tiers:
  anonymous: {shutdown: WhenIdle, idleTimeout: 15m, storage: Delete}
  free: {shutdown: WhenIdle, idleTimeout: 15m, storage: Keep}
  paid: {shutdown: WhenIdle, idleTimeout: 60m, storage: Keep}
  enterprise: {shutdown: Never, storage: Keep}
idle: {checkInterval: 1m, warning: 1m, snoozeMax: 60m, grace: 10s}
restartRules: auto
identities:
  gateway: system:serviceaccount:dexorder-system:gateway
  tierEditors: {users: [system:serviceaccount:dexorder-system:gateway], groups: [system:masters]}
  controllers:
    - system:serviceaccount:kube-system:deployment-controller
    - system:serviceaccount:kube-system:replicaset-controller
    - system:serviceaccount:kube-system:statefulset-controller
    - system:serviceaccount:kube-system:daemon-set-controller
    - system:serviceaccount:kube-system:job-controller
    - system:serviceaccount:kube-system:cronjob-controller
    - system:serviceaccount:kube-system:replication-controller
    - system:kube-controller-manager
profiles:
  - name: agents
    namespaces: {names: [agents]}
    defaultUserType: free
    adoption: warn
    rules:
      image-allowlist: {enforcement: enforce, images: [ghcr.io/dexorder/*]}
      pod-security: {enforcement: enforce, level: restricted, version: v1.36}
      read-only-rootfs: {enforcement: enforce}
      reserved-uids: {enforcement: enforce}
      resource-limits: {enforcement: enforce, limits: [cpu, memory], requests: [cpu, memory]}
      recreate-strategy: {enforcement: enforce}
      agent-container: {enforcement: enforce}
      sidecar-integrity: {enforcement: enforce}
      volumes:
        enforcement: enforce
        types: [configMap, csi, downwardAPI, emptyDir, ephemeral, image, persistentVolumeClaim, projected, secret]
        claims: ["{deployment}-data"]
      references:
        enforcement: enforce
        secrets: ["{deployment}-secrets"]
        configMaps: ["{deployment}-config"]
        tokens: false
      replicas: {enforcement: enforce, max: 1}
      identity: {enforcement: enforce}
      service-account: {enforcement: enforce, names: ["*"], mountToken: true}
      workload-kind: {enforcement: enforce, kinds: [Deployment]}
      terminating: {enforcement: enforce}
      service-links: {enforcement: audit}
      object-size: {enforcement: audit, maxContainers: 100, maxVolumes: 100, maxEnv: 1000, maxVolumeMounts: 1000}
`

func TestDefaults(t *testing.T) {
	if d := diff(decode(t, explicit), decode(t, minimal)); d != "" {
		t.Errorf("the minimal file differs from its defaults (-want +got):\n%s", d)
	}
}

func TestDefaultsThatFollowFromOtherFields(t *testing.T) {
	got := decode(t, strings.Replace(minimal, "    rules:", `    serviceAccount: {name: runner, mountToken: false}
    rules:`, 1)+`
identities: {gateway: me}
tiers:
  anonymous: {idleTimeout: 5m}
  enterprise: {shutdown: WhenIdle, idleTimeout: 2h}
`)
	want := decode(t, minimal)
	want.Identities.Gateway = "me"
	want.Identities.TierEditors.Users = []string{"me"}
	p := &want.Profiles[0]
	p.ServiceAccount = ServiceAccount{Name: "runner", MountToken: new(false)}
	p.Rules.ServiceAccounts.Names = []string{"runner"}
	p.Rules.ServiceAccounts.MountToken = new(false)
	want.Tiers = map[lifecycle.UserType]Tier{
		lifecycle.Anonymous:  {Shutdown: ShutdownWhenIdle, IdleTimeout: duration(5 * 60e9), Storage: StorageDelete},
		lifecycle.Free:       want.Tiers[lifecycle.Free],
		lifecycle.Paid:       want.Tiers[lifecycle.Paid],
		lifecycle.Enterprise: {Shutdown: ShutdownWhenIdle, IdleTimeout: duration(2 * 3600e9), Storage: StorageKeep},
	}
	if d := diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// What a file sets to nothing is not what it leaves out.
func TestDefaultsRespectZeros(t *testing.T) {
	got := decode(t, minimal+`
      resource-limits: {limits: [], requests: []}
      volumes: {types: [], claims: []}
      references: {secrets: [], configMaps: []}
idle: {warning: 0s, snoozeMax: 0s, grace: 0s}
identities: {tierEditors: {users: [], groups: []}}
`)
	want := decode(t, minimal)
	want.Idle.Warning, want.Idle.SnoozeMax, want.Idle.Grace = duration(0), duration(0), duration(0)
	want.Identities.TierEditors = Subjects{Users: []string{}, Groups: []string{}}
	r := &want.Profiles[0].Rules
	r.ResourceLimits.Limits, r.ResourceLimits.Requests = emptyLike(r.ResourceLimits.Limits), emptyLike(r.ResourceLimits.Requests)
	r.Volumes.Types, r.Volumes.Claims = []string{}, []string{}
	r.References.Secrets, r.References.ConfigMaps = []string{}, []string{}
	if d := diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func emptyLike[T any](list []T) []T { return list[:0] }

func TestEveryRuleIsListed(t *testing.T) {
	var rules Rules
	fields := reflect.ValueOf(&rules).Elem()
	listed := rules.all()
	if len(listed) != fields.NumField() {
		t.Fatalf("%d rules are listed, there are %d", len(listed), fields.NumField())
	}
	for i, rule := range listed {
		id, _, _ := strings.Cut(fields.Type().Field(i).Tag.Get("json"), ",")
		if rule.id != id {
			t.Errorf("rule %d is %s, listed as %s", i, id, rule.id)
		}
		// The common part is first in every rule: it has the rule's address.
		if got := reflect.ValueOf(rule.Rule).Pointer(); got != fields.Field(i).Addr().Pointer() {
			t.Errorf("%s is listed with the common part of another rule", id)
		}
	}
}

package manifests

import (
	"flag"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	rolenamespace "github.com/dexorder/agent-lifecycle/manifests/role-namespace"
	"github.com/dexorder/agent-lifecycle/offline"
	"github.com/dexorder/agent-lifecycle/offline/manifest"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/provision"
)

var update = flag.Bool("update", false, "rewrite what is rendered into examples")

// example is the template as people read and copy it.
const (
	example       = "examples/role-agent.yaml"
	exampleHeader = `# A long-lived agent with a role of its own, in a namespace and with an account of its own, as the template in
# manifests/role-namespace has it. This is what comes out of
#   kubectl agents provision marketing --org dexorder --env production --dry-run
# and docs/roles.md says what it is made of. Where the reaper has an account of its own, as in the overlay prod, add --with reaper-account.
`
)

func TestExampleIsRendered(t *testing.T) {
	r, err := provision.Render(provision.Role{Name: "marketing", Org: "dexorder", Environment: "production"})
	if err != nil {
		t.Fatal(err)
	}
	text, err := r.YAML()
	if err != nil {
		t.Fatal(err)
	}
	want := exampleHeader + string(text)
	if *update {
		if err := os.WriteFile(example, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("%s (go test ./manifests -run ExampleIsRendered -update writes it, -want +got):\n%s", example, diff)
	}
}

// roles are all that the template can be: each component by itself, all of them, and the overlays.
func roles() map[string]provision.Role {
	role := func(components ...string) provision.Role {
		return provision.Role{Name: "tester", Org: "dexorder", Environment: "test", Components: components}
	}
	all := map[string]provision.Role{
		"base": role(), "all": role(provision.Components()...),
		"marketing": {Name: "marketing", Dir: "role-namespace/overlays/marketing-production"},
		"ceo":       {Name: "ceo", Dir: "role-namespace/overlays/ceo-staging"},
	}
	for _, component := range provision.Components() {
		all[component] = role(component)
	}
	return all
}

// Each is admitted by the policy that is installed, holds no Secret, binds the reaper once, and gives agents no more than this.
func TestRoleNamespaces(t *testing.T) {
	file, err := v1alpha1.Decode(v1alpha1.Example())
	if err != nil {
		t.Fatal(err)
	}
	rules, err := policy.New(file)
	if err != nil {
		t.Fatal(err)
	}
	judge := offline.Judge{Policy: rules, Namespace: "default"}
	const selfDelete, configMaps = ": delete apps/deployments named agent", ": create configmaps"
	for name, role := range roles() {
		t.Run(name, func(t *testing.T) {
			r, err := provision.Render(role)
			if err != nil {
				t.Fatal(err)
			}
			admitted(t, &judge, r)
			rights := map[string][]string{}
			reapers := 0
			for _, binding := range ofKind[rbacv1.RoleBinding](t, r.Objects, "RoleBinding") {
				if binding.RoleRef.Kind == "ClusterRole" {
					reapers++
					want := "lifecycle-webhook"
					if name == "all" || name == "marketing" || name == "reaper-account" {
						want = "lifecycle-reaper"
					}
					if binding.RoleRef.Name != "lifecycle-reaper-role-namespace" || len(binding.Subjects) != 1 || binding.Subjects[0].Name != want {
						t.Errorf("RoleBinding %s: %+v, %+v, want %s", binding.Name, binding.RoleRef, binding.Subjects, want)
					}
					continue
				}
				role := as[rbacv1.Role](t, one(t, r.Objects, binding.RoleRef.Kind, binding.RoleRef.Name))
				grant(rights, binding.Namespace, binding.Subjects, role.Rules)
			}
			if reapers != 1 {
				t.Errorf("the reaper is bound %d times", reapers)
			}
			account := "ServiceAccount " + r.Namespace + "/agent"
			var subjects []string
			for subject := range rights {
				subjects = append(subjects, subject)
			}
			if len(subjects) > 1 || len(subjects) == 1 && subjects[0] != account {
				t.Errorf("rights for %v, want for %s alone", subjects, account)
			}
			for _, right := range rights[account] {
				if strings.Contains(right, "secrets") || strings.Contains(right, "token") || strings.Contains(right, "exec") {
					t.Errorf("the agent may %s", right)
				}
			}
			shutsDown := slices.Contains([]string{"all", "ceo", "shuts-down"}, name)
			if got := slices.Contains(rights[account], r.Namespace+selfDelete); got != shutsDown {
				t.Errorf("it may delete itself: %t, want %t", got, shutsDown)
			}
			usesAPI := slices.Contains([]string{"all", "ceo", "kubernetes-api"}, name)
			if got := slices.Contains(rights[account], r.Namespace+configMaps); got != usesAPI {
				t.Errorf("it uses the API: %t, want %t", got, usesAPI)
			}
			for _, policy := range []string{"default-deny", "dns", "gateway", "internet", "messaging"} {
				one(t, r.Objects, "NetworkPolicy", policy)
			}
		})
	}
}

func admitted(t *testing.T, judge *offline.Judge, r *provision.Rendered) {
	t.Helper()
	text, err := r.YAML()
	if err != nil {
		t.Fatal(err)
	}
	sources, errs := manifest.Sources([]string{"-"}, strings.NewReader(string(text)))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	documents, err := sources[0].Documents()
	if err != nil {
		t.Fatal(err)
	}
	agents := 0
	for _, document := range documents {
		for _, object := range document.Objects {
			verdict := judge.Check(object)
			for _, reason := range verdict.Reasons {
				t.Errorf("%s: %s", object.Name, reason)
			}
			if verdict.Outcome == offline.Admitted {
				agents++
			}
		}
	}
	if agents != 1 {
		t.Errorf("%d agents are admitted, want 1", agents)
	}
}

// What the program carries along is what kustomize makes of the directory.
func TestTemplateIsWhole(t *testing.T) {
	want := render(t, "role-namespace/overlays/ceo-staging")
	r, err := provision.Render(provision.Role{Name: "ceo", Dir: "role-namespace/overlays/ceo-staging"})
	if err != nil {
		t.Fatal(err)
	}
	byName := func(objects []*unstructured.Unstructured) map[string]string {
		all := map[string]string{}
		for _, o := range objects {
			text, err := yaml.Marshal(o.Object)
			if err != nil {
				t.Fatal(err)
			}
			all[o.GetKind()+" "+o.GetName()] = string(text)
		}
		return all
	}
	if diff := cmp.Diff(byName(want), byName(r.Objects)); diff != "" {
		t.Errorf("kustomize and this program differ (-want +got):\n%s", diff)
	}
	files := map[string]bool{}
	for _, tree := range []fs.FS{os.DirFS("role-namespace"), rolenamespace.Files} {
		err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
			if err == nil && !entry.IsDir() && strings.HasSuffix(name, ".yaml") && !strings.HasPrefix(name, "overlays/") {
				files[name] = !files[name]
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, once := range files {
		if once {
			t.Errorf("%s is in the directory or in the program, and not in both", name)
		}
	}
}

package integration

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/internal/installation"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// policyDenial is what whoever writes badPolicy is told.
const policyDenial = `admission webhook "policy.lifecycle.dexorder.io" denied the request: refused, since no server could load this policy:
- idle.checkInterval: Invalid value: "often": must be a duration, such as 90s, 15m or 1h30m
- tiers.anonymous.storage: Unsupported value: "Forget": supported values: "Delete", "Keep"`

// badPolicy is the example policy with two mistakes, and with a number so that one differs from the other.
func badPolicy(number string) string {
	return strings.NewReplacer("checkInterval: 1m ", "checkInterval: often ", "storage: Delete # or Keep", "storage: Forget # or Keep").
		Replace(string(v1alpha1.Example())) + "# " + number + "\n"
}

// goodPolicy is the example policy, with a comment.
func goodPolicy(comment string) string { return string(v1alpha1.Example()) + "# " + comment + "\n" }

func policyMap(file string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: installation.SystemNamespace, Name: lifecycle.PolicyConfigMap},
		Data:       map[string]string{lifecycle.PolicyKey: file},
	}
}

// TestPolicyWrites: a policy with mistakes is refused when it is written, while a server runs.
func TestPolicyWrites(t *testing.T) {
	t.Parallel()
	c := &policyWrites{install(t, controlplane.Options{})}
	eventually(t, "refusal of a policy with mistakes", func() (bool, error) {
		err := c.Client.Create(t.Context(), policyMap(badPolicy("0")), client.DryRunAll)
		return err != nil, err
	})
	t.Run("created", c.testCreated)
	t.Run("changed", c.testChanged)
	t.Run("without a file", c.testWithoutFile)
	t.Run("other ConfigMaps", c.testOtherConfigMaps)
	t.Run("older server", c.testOlderServer)
	t.Run("server away", c.testServerAway)
}

type policyWrites struct{ *cluster }

// refused fails the test unless err is the denial of badPolicy, in every word.
func (c *policyWrites) refused(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Error("a policy with mistakes was accepted")
		return
	}
	if diff := cmp.Diff(policyDenial, err.Error()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	var status apierrors.APIStatus
	if !apierrors.IsInvalid(err) || !errors.As(err, &status) {
		t.Errorf("it is no %s: %v", metav1.StatusReasonInvalid, err)
		return
	}
	var fields []string
	for _, cause := range status.Status().Details.Causes {
		fields = append(fields, cause.Field)
	}
	if want := []string{"idle.checkInterval", "tiers.anonymous.storage"}; !slices.Equal(fields, want) {
		t.Errorf("causes are about %q, want %q", fields, want)
	}
}

// stored returns the file that is stored.
func (c *policyWrites) stored(t *testing.T) string {
	t.Helper()
	o := policyMap("")
	c.get(t, o)
	return o.Data[lifecycle.PolicyKey]
}

func (c *policyWrites) testCreated(t *testing.T) {
	c.refused(t, c.Client.Create(t.Context(), policyMap(badPolicy("1"))))
	if err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(policyMap("")), policyMap("")); !apierrors.IsNotFound(err) {
		t.Fatalf("after a refused creation: %v", err)
	}
	c.create(t, policyMap(goodPolicy("created")))
}

// ways are those in which an object is changed.
var ways = map[string]func(*testing.T, *policyWrites, string, bool) error{
	"update": func(t *testing.T, c *policyWrites, file string, dryRun bool) error {
		o := policyMap("")
		c.get(t, o)
		o.Data[lifecycle.PolicyKey] = file
		return c.Client.Update(t.Context(), o, &client.UpdateOptions{DryRun: dry(dryRun)})
	},
	"patch": func(t *testing.T, c *policyWrites, file string, dryRun bool) error {
		o := policyMap("")
		c.get(t, o)
		before := o.DeepCopy()
		o.Data[lifecycle.PolicyKey] = file
		return c.Client.Patch(t.Context(), o, client.MergeFrom(before), &client.PatchOptions{DryRun: dry(dryRun)})
	},
	"server-side apply": func(t *testing.T, c *policyWrites, file string, dryRun bool) error {
		o := corev1apply.ConfigMap(lifecycle.PolicyConfigMap, installation.SystemNamespace).
			WithData(map[string]string{lifecycle.PolicyKey: file})
		return c.Client.Apply(t.Context(), o, &client.ApplyOptions{DryRun: dry(dryRun), FieldManager: "test", Force: ptr(true)})
	},
}

func dry(run bool) []string {
	if run {
		return []string{metav1.DryRunAll}
	}
	return nil
}

func (c *policyWrites) testChanged(t *testing.T) {
	for name, write := range ways {
		t.Run(name, func(t *testing.T) {
			before := c.stored(t)
			c.refused(t, write(t, c, badPolicy(name), true))
			c.refused(t, write(t, c, badPolicy(name), false))
			next := goodPolicy(name)
			if err := write(t, c, next, true); err != nil {
				t.Errorf("dry run of a good policy: %v", err)
			}
			if c.stored(t) != before {
				t.Fatal("what was refused, or a dry run, is stored")
			}
			if err := write(t, c, next, false); err != nil || c.stored(t) != next {
				t.Errorf("a good policy: %v; stored:\n%s", err, c.stored(t))
			}
		})
	}
}

func (c *policyWrites) testWithoutFile(t *testing.T) {
	o := policyMap("")
	c.get(t, o)
	o.Data = map[string]string{"policy.yml": goodPolicy("")}
	const want = `admission webhook "policy.lifecycle.dexorder.io" denied the request: refused, since no server could load this policy:
- data[policy.yaml]: Required value: the policy file goes here, a LifecyclePolicy of lifecycle.dexorder.io/v1alpha1; there is "policy.yml"`
	if err := c.Client.Update(t.Context(), o); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// testOtherConfigMaps writes what is no policy where there is none.
func (c *policyWrites) testOtherConfigMaps(t *testing.T) {
	another, elsewhere := policyMap(badPolicy("another")), policyMap(badPolicy("elsewhere"))
	another.Name, elsewhere.Namespace = "another", agents
	c.create(t, another)
	c.create(t, elsewhere)
}

// testOlderServer has the API server call a path that the server does not know, as a server of before does not know this one.
func (c *policyWrites) testOlderServer(t *testing.T) {
	setPath := func(path string) {
		config := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "agent-lifecycle"}}
		c.get(t, config)
		before := config.DeepCopy()
		i := slices.IndexFunc(config.Webhooks, func(w admissionregistrationv1.ValidatingWebhook) bool {
			return w.Name == "policy.lifecycle.dexorder.io"
		})
		config.Webhooks[i].ClientConfig.URL = ptr("https://" + c.Address() + path)
		if err := c.Client.Patch(t.Context(), config, client.MergeFrom(before)); err != nil {
			t.Fatal(err)
		}
	}
	setPath("/unknown")
	eventually(t, "write that an older server does not judge", func() (bool, error) {
		err := ways["update"](t, c, badPolicy("older server"), false)
		return err == nil, err
	})
	setPath("/policy/2")
	eventually(t, "refusal by the newer server", func() (bool, error) {
		return ways["update"](t, c, badPolicy("newer server"), true) != nil, nil
	})
	// What is stored already is nobody's business, until it is changed.
	o := policyMap("")
	c.get(t, o)
	o.Labels = map[string]string{"team": "blue"}
	if err := c.Client.Update(t.Context(), o); err != nil {
		t.Errorf("another label on a policy with mistakes: %v", err)
	}
	c.refused(t, ways["update"](t, c, badPolicy("newer server"), false))
}

// testServerAway installs, breaks and mends a policy while no server runs.
func (c *policyWrites) testServerAway(t *testing.T) {
	for _, s := range c.Servers() {
		if err := c.RemoveServer(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Client.Delete(t.Context(), policyMap("")); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	c.create(t, policyMap(badPolicy("while away")))
	for name, write := range ways {
		if err := write(t, c, badPolicy("while away by "+name), false); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	t.Logf("%d writes without a server took %s", 1+len(ways), time.Since(start))
	c.cannotStart(t, c.stored(t))
	if err := ways["patch"](t, c, goodPolicy("mended"), false); err != nil {
		t.Fatalf("mending: %v", err)
	}
	if err := c.WritePolicy([]byte(c.stored(t))); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AddServer(t.Context()); err != nil {
		t.Fatalf("with the mended policy: %v", err)
	}
	eventually(t, "refusal by the server that is back", func() (bool, error) {
		return ways["update"](t, c, badPolicy("back"), true) != nil, nil
	})
}

// cannotStart starts a server with a policy that has mistakes, and wants its log to name them.
func (c *policyWrites) cannotStart(t *testing.T, file string) {
	t.Helper()
	if err := c.WritePolicy([]byte(file)); err != nil {
		t.Fatal(err)
	}
	_, err := c.AddServer(t.Context())
	if err == nil {
		t.Fatal("a server has started with a policy that has mistakes")
	}
	_, mistakes, _ := strings.Cut(policyDenial, "policy:\n")
	for mistake := range strings.SplitSeq(mistakes, "\n") {
		if mistake = strings.TrimPrefix(mistake, "- "); !strings.Contains(err.Error(), mistake) {
			t.Errorf("its log does not say %q: %v", mistake, err)
		}
	}
}

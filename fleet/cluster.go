package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/dexorder/agent-lifecycle/inject"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/workload"
)

// pageSize bounds how much of a fleet is in memory at once. A page of Deployments is about a megabyte.
const pageSize = 200

// Cluster reads a cluster in pages.
type Cluster struct {
	client kubernetes.Interface

	// system is the namespace of the installation.
	system string
}

// Connect returns a Cluster. system is the namespace of the installation.
func Connect(config *rest.Config, system string) (*Cluster, error) {
	transport, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	// Agents answer by way of the API server. A redirect of theirs would be followed with the operator's credentials.
	straight := *transport
	straight.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client, err := kubernetes.NewForConfigAndClient(config, &straight)
	if err != nil {
		return nil, err
	}
	return &Cluster{client: client, system: system}, nil
}

// ErrNotInstalled says that there is no policy in force.
var ErrNotInstalled = errors.New("the system is not installed")

// Policy reads the policy in force. The error is ErrNotInstalled if there is none, and ErrNoPolicy if there are
// servers without one.
func (c *Cluster) Policy(ctx context.Context) ([]byte, error) {
	m, err := c.client.CoreV1().ConfigMaps(c.system).Get(ctx, lifecycle.PolicyConfigMap, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, c.servers(ctx).missingPolicy(c.system)
	case err != nil:
		return nil, fmt.Errorf("read the policy in force: %w", err)
	}
	text, ok := m.Data[lifecycle.PolicyKey]
	if !ok {
		return nil, c.UnreadablePolicy(ctx, fmt.Sprintf("  it has no key %q", lifecycle.PolicyKey))
	}
	return []byte(text), nil
}

// KeepsRestartRules says whether the API server keeps container restart rules, as far as its version tells.
func (c *Cluster) KeepsRestartRules() (bool, error) {
	info, err := c.client.Discovery().ServerVersion()
	if err != nil {
		return false, fmt.Errorf("read the API server's version: %w", err)
	}
	return inject.KeepsRestartRules(info.GitVersion)
}

// Namespace is a namespace that holds agents.
type Namespace struct {
	Name                string
	Labels, Annotations map[string]string
}

// Namespaces returns the namespaces for which covers holds, by name. With a name it is that one alone, which must exist.
func (c *Cluster) Namespaces(ctx context.Context, name string, covers func(string) bool) (map[string]Namespace, error) {
	if name != "" {
		n, err := c.namespace(ctx, name)
		return map[string]Namespace{name: n}, err
	}
	found := map[string]Namespace{}
	err := c.eachMetadata(ctx, apiResource{plural: "namespaces"}, "", "", func(m *metav1.PartialObjectMetadata) error {
		if covers(m.Name) {
			found[m.Name] = Namespace{m.Name, m.Labels, m.Annotations}
		}
		return nil
	})
	return found, err
}

func (c *Cluster) namespace(ctx context.Context, name string) (Namespace, error) {
	found := Namespace{Name: name}
	err := patiently(ctx, func(ctx context.Context) error {
		n, err := c.client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		if err == nil {
			found.Labels, found.Annotations = n.Labels, n.Annotations
		}
		return err
	})
	return found, err
}

func (c *Cluster) deployment(ctx context.Context, t target) (*appsv1.Deployment, error) {
	var d *appsv1.Deployment
	err := patiently(ctx, func(ctx context.Context) (err error) {
		d, err = c.client.AppsV1().Deployments(t.namespace).Get(ctx, t.name, metav1.GetOptions{})
		return err
	})
	return d, err
}

// mayPatch says whether the caller has the right to change Deployments in a namespace at all.
func (c *Cluster) mayPatch(ctx context.Context, namespace string) (bool, error) {
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: "patch", Group: appsv1.GroupName, Resource: "deployments"},
	}}
	review, err := c.client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("ask whether you may patch deployments in namespace %q: %w", namespace, err)
	}
	return review.Status.Allowed, nil
}

// apiResource is what the API calls a kind.
type apiResource struct {
	gvk    schema.GroupVersionKind
	plural string
}

// path is where the objects of a namespace are; of the whole cluster if that is empty.
func (r apiResource) path(namespace string) []string {
	path := []string{"/api", "v1"}
	if r.gvk.Group != "" {
		path = []string{"/apis", r.gvk.Group, r.gvk.Version}
	}
	if namespace != "" {
		path = append(path, "namespaces", namespace)
	}
	return append(path, r.plural)
}

var (
	deployments = apiResource{appsv1.SchemeGroupVersion.WithKind("Deployment"), "deployments"}
	claims      = apiResource{corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"), "persistentvolumeclaims"}
	autoscalers = apiResource{autoscalingv2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler"), "horizontalpodautoscalers"}
)

// page is what there is to know of any list.
type page struct {
	Metadata metav1.ListMeta   `json:"metadata"`
	Items    []json.RawMessage `json:"items"`
}

const (
	wholeObjects = "application/json"
	metadataOnly = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
)

// eachPage reads a list page by page. Where a page's continuation has expired, because whoever reads was slow, it goes on with what is
// there by then: an audit of a fleet that changes meanwhile is as good either way, and a list that begins anew may never end.
func (c *Cluster) eachPage(ctx context.Context, r apiResource, namespace, selector, accept string, do func(*page) error) error {
	next := ""
	for {
		request := c.client.CoreV1().RESTClient().Get().AbsPath(r.path(namespace)...).SetHeader("Accept", accept).
			Param("limit", strconv.Itoa(pageSize))
		if selector != "" {
			request = request.Param("labelSelector", selector)
		}
		if next != "" {
			request = request.Param("continue", next)
		}
		var body []byte
		err := patiently(ctx, func(ctx context.Context) (err error) {
			body, err = raw(request.Do(ctx))
			return err
		})
		if resumed := resumption(err); resumed != "" && resumed != next {
			next = resumed
			continue
		}
		if err != nil {
			return fmt.Errorf("list %s%s: %w", r.plural, inNamespace(namespace), err)
		}
		var p page
		if err := json.Unmarshal(body, &p); err != nil {
			return fmt.Errorf("list %s%s: %w", r.plural, inNamespace(namespace), err)
		}
		if err := do(&p); err != nil {
			return err
		}
		if next = p.Metadata.Continue; next == "" {
			return nil
		}
	}
}

// raw returns what was answered as it is. An error is what the API server says of it, which Result.Raw alone would not tell.
func raw(r rest.Result) ([]byte, error) {
	if err := r.Error(); err != nil {
		return nil, err
	}
	return r.Raw()
}

// resumption is where to go on after a continuation has expired; empty after anything else.
func resumption(err error) string {
	var status apierrors.APIStatus
	if err == nil || !apierrors.IsResourceExpired(err) || !errors.As(err, &status) {
		return ""
	}
	return status.Status().Continue
}

func inNamespace(namespace string) string {
	if namespace == "" {
		return ""
	}
	return fmt.Sprintf(" of namespace %q", namespace)
}

func (c *Cluster) eachMetadata(ctx context.Context, r apiResource, namespace, selector string, do func(*metav1.PartialObjectMetadata) error) error {
	return c.eachPage(ctx, r, namespace, selector, metadataOnly, func(p *page) error {
		for _, item := range p.Items {
			var m metav1.PartialObjectMetadata
			if err := json.Unmarshal(item, &m); err != nil {
				return fmt.Errorf("list %s%s: %w", r.plural, inNamespace(namespace), err)
			}
			if err := do(&m); err != nil {
				return err
			}
		}
		return nil
	})
}

// eachDeployment calls do with the Deployments of a namespace; those that cannot be decoded are errors.
func (c *Cluster) eachDeployment(ctx context.Context, namespace, selector string, do func(*appsv1.Deployment) error) error {
	return c.eachPage(ctx, deployments, namespace, selector, wholeObjects, func(p *page) error {
		for _, item := range p.Items {
			o, err := workload.Decode(deployments.gvk, item)
			if err != nil {
				return fmt.Errorf("list deployments%s: %w", inNamespace(namespace), err)
			}
			if err := do(o.Deployment); err != nil {
				return err
			}
		}
		return nil
	})
}

// claimsOf reads what there is to know of the claims that a Deployment mounts, but for who else does.
func (c *Cluster) claimsOf(ctx context.Context, d *appsv1.Deployment) (map[string]policy.Claim, error) {
	facts := map[string]policy.Claim{}
	for _, name := range workload.Claims(&d.Spec.Template.Spec) {
		err := patiently(ctx, func(ctx context.Context) error {
			claim, err := c.client.CoreV1().PersistentVolumeClaims(d.Namespace).Get(ctx, name, metav1.GetOptions{})
			switch {
			case apierrors.IsNotFound(err):
				return nil
			case err != nil:
				return fmt.Errorf("get PersistentVolumeClaim %q%s: %w", name, inNamespace(d.Namespace), err)
			}
			facts[name] = factsOf(claim, d.Name)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return facts, nil
}

func factsOf(claim metav1.Object, mountedBy ...string) policy.Claim {
	labels := claim.GetLabels()
	return policy.Claim{
		Exists: true, Deployment: labels[lifecycle.LabelDeployment], UserType: labels[lifecycle.LabelUserType], Owners: claim.GetOwnerReferences(),
		MountedBy: mountedBy,
	}
}

// claimFacts gathers what verdicts need to know of a namespace's claims: whose they are, and who mounts them.
func (c *Cluster) claimFacts(ctx context.Context, namespace string) (map[string]policy.Claim, error) {
	facts := map[string]policy.Claim{}
	err := c.eachMetadata(ctx, claims, namespace, "", func(m *metav1.PartialObjectMetadata) error {
		facts[m.Name] = factsOf(m)
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = c.eachDeployment(ctx, namespace, "", func(d *appsv1.Deployment) error {
		for _, name := range workload.Claims(&d.Spec.Template.Spec) {
			claim := facts[name]
			if !slices.Contains(claim.MountedBy, d.Name) {
				claim.MountedBy = append(claim.MountedBy, d.Name)
			}
			facts[name] = claim
		}
		return nil
	})
	for _, claim := range facts {
		slices.Sort(claim.MountedBy)
	}
	return facts, err
}

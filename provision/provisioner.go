package provision

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// FieldManager is who owns what is applied.
const FieldManager = lifecycle.FieldManagerProvision

// ErrRefused is at the root of errors that say that something is as it must not be; others say that it could not be found out.
var ErrRefused = errors.New("refused")

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrRefused}, args...)...)
}

// Provisioner provisions namespaces of role agents in one cluster, and takes them out of service.
type Provisioner struct {
	typed    kubernetes.Interface
	objects  dynamic.Interface
	metadata metadata.Interface // which cannot read the values of Secrets

	// system is the namespace of the system itself.
	system string
	now    func() time.Time
}

// New returns a Provisioner with somebody's access. systemNamespace is where the webhook is installed.
func New(config *rest.Config, systemNamespace string, now func() time.Time) (*Provisioner, error) {
	typed, errTyped := kubernetes.NewForConfig(config)
	objects, errObjects := dynamic.NewForConfig(config)
	meta, errMeta := metadata.NewForConfig(config)
	if err := errors.Join(errTyped, errObjects, errMeta); err != nil {
		return nil, err
	}
	return &Provisioner{typed: typed, objects: objects, metadata: meta, system: systemNamespace, now: now}, nil
}

// Render is the function Render with what this cluster says: where its API server is, and which account the reaper has. warning says
// where a kustomization of one's own sees that account otherwise.
func (p *Provisioner) Render(ctx context.Context, role Role) (r *Rendered, warning string, err error) {
	account, err := p.reaper(ctx)
	if err != nil {
		return nil, "", err
	}
	if role.Dir == "" && account == reaperAccount {
		role.Components = with(role.Components, componentReaperAccount)
	}
	if r, err = Render(role); err != nil {
		return nil, "", err
	}
	if !r.binds(account, p.system) {
		warning = fmt.Sprintf("the reaper runs as %s in %s, to which no RoleBinding gives the ClusterRole %s: it will look after namespace %s,"+
			" and never reap it; see the component %s", account, p.system, reaperRole, r.Namespace, componentReaperAccount)
	}
	server, err := FindAPIServer(ctx, p.typed)
	if err != nil {
		return nil, "", err
	}
	if err := r.Reach(server); err != nil {
		return nil, "", err
	}
	return r, warning, nil
}

// reaper finds out which account the reaper runs as.
func (p *Provisioner) reaper(ctx context.Context) (string, error) {
	_, err := p.typed.CoreV1().ServiceAccounts(p.system).Get(ctx, reaperAccount, metav1.GetOptions{})
	switch {
	case err == nil:
		return reaperAccount, nil
	case apierrors.IsNotFound(err):
		return serverAccount, nil
	}
	return "", fmt.Errorf("find the reaper's account: %w", err)
}

// binds says whether an account in the system's namespace gets what the reaper needs.
func (r *Rendered) binds(account, system string) bool {
	return slices.ContainsFunc(r.Objects, func(o *unstructured.Unstructured) bool {
		var b rbacv1.RoleBinding
		if o.GetKind() != "RoleBinding" || runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &b) != nil {
			return false
		}
		return b.RoleRef.Kind == "ClusterRole" && b.RoleRef.Name == reaperRole && slices.ContainsFunc(b.Subjects, func(s rbacv1.Subject) bool {
			return s.Kind == rbacv1.ServiceAccountKind && s.Namespace == system && s.Name == account
		})
	})
}

const (
	// reaperAccount exists where the reaper does not run as the server.
	reaperAccount          = "lifecycle-reaper"
	serverAccount          = "lifecycle-webhook"
	reaperRole             = "lifecycle-reaper-role-namespace"
	componentReaperAccount = "reaper-account"
)

func with(components []string, component string) []string {
	if slices.Contains(components, component) {
		return components
	}
	return append(slices.Clone(components), component)
}

func (p *Provisioner) client(o *unstructured.Unstructured) dynamic.ResourceInterface {
	resource := p.objects.Resource(resourceOf(o))
	if o.GetKind() == kindNamespace {
		return resource
	}
	return resource.Namespace(o.GetNamespace())
}

// admits says why a namespace cannot be provisioned as it is now, or whether it is there at all.
func (p *Provisioner) admits(ctx context.Context, r *Rendered) (exists bool, err error) {
	if _, err := p.typed.CoreV1().Namespaces().Get(ctx, p.system, metav1.GetOptions{}); err != nil {
		return false, fmt.Errorf("namespace %s, where the lifecycle webhook should be installed: %w", p.system, err)
	}
	n, err := p.typed.CoreV1().Namespaces().Get(ctx, r.Namespace, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, err
	}
	return true, usable(n, &r.Role)
}

// usable says why a namespace that exists cannot be provisioned for a role.
func usable(n *corev1.Namespace, whose *Role) error {
	role := whose.Name
	undo := "to use it again, run: kubectl agents deprovision --undo " + n.Name
	switch is := n.Labels[lifecycle.LabelAgentRole]; {
	case is == "":
		return refused("namespace %s exists and is no role agent's: it has no label %s; if it is to be one, run: kubectl label namespace %s %s=%s",
			n.Name, lifecycle.LabelAgentRole, n.Name, lifecycle.LabelAgentRole, role)
	case is != role:
		return refused("namespace %s is of the role %q, and not %q", n.Name, is, role)
	case n.DeletionTimestamp != nil:
		return refused("namespace %s has been in deletion since %s%s: wait until it has gone, and run this again", n.Name,
			n.DeletionTimestamp.UTC().Format(time.RFC3339), heldBy(n))
	}
	if mark, has := n.Annotations[lifecycle.AnnotationReaping]; has {
		return refused("namespace %s is marked for reaping since %s and takes nothing that runs; %s", n.Name, mark, undo)
	}
	if mark, has := n.Annotations[lifecycle.AnnotationDeprovisioned]; has {
		return refused("namespace %s was deprovisioned (%s); %s", n.Name, mark, undo)
	}
	return sameOwner(n, whose)
}

// sameOwner refuses to make an org's or environment's namespace another one's. What has no label yet is nobody's.
func sameOwner(n *corev1.Namespace, whose *Role) error {
	differs := func(key, want string) bool { return n.Labels[key] != "" && n.Labels[key] != want }
	if !differs(lifecycle.LabelOrg, whose.Org) && !differs(lifecycle.LabelEnvironment, whose.Environment) {
		return nil
	}
	return refused("namespace %s is of the role %q in org %q and environment %q, and not in org %q and environment %q: accepted are --org %s --env %s;"+
		" for another namespace of the role, name it in a kustomization of your own, and that with --from;"+
		" if this one is to change hands, run: kubectl label namespace %s --overwrite %s=%s %s=%s",
		n.Name, whose.Name, n.Labels[lifecycle.LabelOrg], n.Labels[lifecycle.LabelEnvironment], whose.Org, whose.Environment,
		cmp.Or(n.Labels[lifecycle.LabelOrg], whose.Org), cmp.Or(n.Labels[lifecycle.LabelEnvironment], whose.Environment),
		n.Name, lifecycle.LabelOrg, whose.Org, lifecycle.LabelEnvironment, whose.Environment)
}

// heldBy says what a deletion waits for, as far as the API server says.
func heldBy(n *corev1.Namespace) string {
	var why []string
	for _, c := range n.Status.Conditions {
		if c.Status == corev1.ConditionTrue {
			why = append(why, c.Message)
		}
	}
	if len(why) == 0 {
		return ""
	}
	return " (" + strings.Join(why, "; ") + ")"
}

package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// compareEvery is how often the registrations are read. Two small reads; nothing waits for the result.
const compareEvery = 30 * time.Second

// Coverage compares what the policy covers with the webhook configurations that are registered, and is loud when they
// differ: a namespace that only the policy knows is not guarded at all.
type Coverage struct {
	live    client.Reader
	name    string
	metrics *Metrics
	log     *slog.Logger
	changed chan struct{}

	// Gateway, if set, returns the account that the policy in force calls the gateway. Set it before Run.
	Gateway func() string

	mu     sync.Mutex
	policy scope
	// differences is what was found last; nil before the first look.
	differences []string
	// notices likewise, of what nothing unjudged passes by.
	notices []string
	looked  bool
}

// NewCoverage returns a Coverage for the mutating and the validating configuration of one name.
func NewCoverage(live client.Reader, name string, coverage []v1alpha1.Namespaces, m *Metrics, log *slog.Logger) *Coverage {
	return &Coverage{
		live: live, name: name, metrics: m, log: log, policy: newScope(coverage), changed: make(chan struct{}, 1),
	}
}

// Cover tells what a new policy covers.
func (c *Coverage) Cover(coverage []v1alpha1.Namespaces) {
	c.mu.Lock()
	c.policy = newScope(coverage)
	c.mu.Unlock()
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// Check returns the differences as an error.
func (c *Coverage) Check() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.looked:
		return errors.New("the webhook configurations have not been read yet")
	case len(c.differences) > 0:
		return errors.New(strings.Join(c.differences, "; "))
	}
	return nil
}

// Run compares until ctx ends.
func (c *Coverage) Run(ctx context.Context) error {
	c.metrics.coverage.WithLabelValues("mutating").Set(-1)
	c.metrics.coverage.WithLabelValues("validating").Set(-1)
	ticker := time.NewTicker(compareEvery)
	defer ticker.Stop()
	for {
		if err := c.look(ctx); err != nil && ctx.Err() == nil {
			c.log.WarnContext(ctx, "The webhook configurations cannot be compared with the policy", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.changed:
		case <-ticker.C:
		}
	}
}

func (c *Coverage) look(ctx context.Context) error {
	c.mu.Lock()
	policy := c.policy
	c.mu.Unlock()
	var mutating admissionregistrationv1.MutatingWebhookConfiguration
	var validating admissionregistrationv1.ValidatingWebhookConfiguration
	key := types.NamespacedName{Name: c.name}
	if err := client.IgnoreNotFound(c.live.Get(ctx, key, &mutating)); err != nil {
		return fmt.Errorf("MutatingWebhookConfiguration: %w", err)
	}
	if err := client.IgnoreNotFound(c.live.Get(ctx, key, &validating)); err != nil {
		return fmt.Errorf("ValidatingWebhookConfiguration: %w", err)
	}
	onMutate := compare(mutatingWebhooks(&mutating), "/mutate", mutates, policy)
	onValidate := compare(validatingWebhooks(&validating), "/validate", validates, policy)
	if c.Gateway != nil {
		onValidate = append(onValidate, compareGateway(validatingWebhooks(&validating), "/validate", c.Gateway())...)
	}
	c.metrics.coverage.WithLabelValues("mutating").Set(float64(len(onMutate)))
	c.metrics.coverage.WithLabelValues("validating").Set(float64(len(onValidate)))
	c.notice(ctx, compareStamps(mutatingWebhooks(&mutating)))
	c.tell(append(onMutate, onValidate...))
	return nil
}

// notice logs what is worth knowing though it makes nothing unsafe: once for as long as it stays the same.
func (c *Coverage) notice(ctx context.Context, notices []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Equal(c.notices, notices) && len(notices) > 0 {
		c.log.InfoContext(ctx, "What role agents make is not stamped as it should be; what has no stamp is never reaped",
			"configuration", c.name, "notices", notices)
	}
	c.notices = notices
}

// tell logs what changed since the last look, and only then.
func (c *Coverage) tell(differences []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, first := strings.Join(c.differences, "\n"), !c.looked
	c.differences, c.looked = differences, true
	now := strings.Join(differences, "\n")
	switch {
	case now == before && !first:
	case now == "":
		c.log.Info("The webhook configurations register what the policy covers", "configuration", c.name)
	default:
		c.log.Error("The webhook configurations do not register what the policy covers", "configuration", c.name,
			"differences", differences)
	}
}

func mutatingWebhooks(config *admissionregistrationv1.MutatingWebhookConfiguration) []registered {
	var list []registered
	for i := range config.Webhooks {
		w := &config.Webhooks[i]
		list = append(list, registered{
			name: w.Name, path: pathOf(&w.ClientConfig), failurePolicy: w.FailurePolicy, rules: w.Rules,
			conditions: w.MatchConditions, selects: selects(w.NamespaceSelector) || selects(w.ObjectSelector),
		})
	}
	return list
}

func validatingWebhooks(config *admissionregistrationv1.ValidatingWebhookConfiguration) []registered {
	var list []registered
	for i := range config.Webhooks {
		w := &config.Webhooks[i]
		list = append(list, registered{
			name: w.Name, path: pathOf(&w.ClientConfig), failurePolicy: w.FailurePolicy, rules: w.Rules,
			conditions: w.MatchConditions, selects: selects(w.NamespaceSelector) || selects(w.ObjectSelector),
		})
	}
	return list
}

func selects(s *metav1.LabelSelector) bool {
	return s != nil && len(s.MatchLabels)+len(s.MatchExpressions) > 0
}

// pathOf returns the path that a webhook calls, by Service or by URL.
func pathOf(c *admissionregistrationv1.WebhookClientConfig) string {
	switch {
	case c.Service != nil && c.Service.Path != nil:
		return *c.Service.Path
	case c.URL != nil:
		return urlPath(*c.URL)
	}
	return ""
}

func urlPath(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return u.Path
}

package webhook

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gomodules.xyz/jsonpatch/v2"
	appsv1 "k8s.io/api/apps/v1"

	"github.com/dexorder/agent-lifecycle/inject"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// PolicyFile keeps the policy of a file in force, and follows the file. A file that is no policy changes nothing: the
// last good one stays in force, and Rejected says what is wrong with the new one.
type PolicyFile struct {
	path    string
	metrics *Metrics
	log     *slog.Logger

	// OnChange, if set, is called with what the policy covers, at first and whenever a new one comes into force.
	// Set it before Run.
	OnChange func([]v1alpha1.Namespaces)

	active atomic.Pointer[activePolicy]

	mu       sync.Mutex
	rejected error
}

type activePolicy struct {
	Active
	coverage   []v1alpha1.Namespaces
	file       *v1alpha1.LifecyclePolicy
	selfDelete v1alpha1.SelfDelete
	gateway    string
}

// LoadPolicyFile reads the file for the first time. A server cannot start without a policy: every error in the file is
// in the error.
func LoadPolicyFile(path string, metrics *Metrics, log *slog.Logger) (*PolicyFile, error) {
	f := &PolicyFile{path: path, metrics: metrics, log: log}
	data, err := readBounded(path)
	if err != nil {
		return nil, fmt.Errorf("policy file: %w", err)
	}
	active, err := compile(data)
	if err != nil {
		return nil, fmt.Errorf("policy file %s: %w", path, err)
	}
	f.activate(active)
	return f, nil
}

// Active implements PolicySource.
func (f *PolicyFile) Active() Active { return f.active.Load().Active }

// File returns the policy file in force. It must not be changed.
func (f *PolicyFile) File() *v1alpha1.LifecyclePolicy { return f.active.Load().file }

// SelfDelete returns what the policy in force asks of agents that delete themselves.
func (f *PolicyFile) SelfDelete() v1alpha1.SelfDelete { return f.active.Load().selfDelete }

// Gateway returns the account that the policy in force calls the gateway.
func (f *PolicyFile) Gateway() string { return f.active.Load().gateway }

// Coverage returns the namespaces that the policy in force covers, one entry for each profile.
func (f *PolicyFile) Coverage() []v1alpha1.Namespaces { return f.active.Load().coverage }

// Rejected says why the file as it is now is not in force; nil if it is.
func (f *PolicyFile) Rejected() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rejected
}

// AuditedOnly says which rules are audited because they are newer than the policy in force; nil if there are none.
func (f *PolicyFile) AuditedOnly() error { return f.active.Load().auditedOnly() }

func (p *activePolicy) auditedOnly() error {
	audited := p.file.AuditedRules()
	if len(audited) == 0 {
		return nil
	}
	return fmt.Errorf("rulesRevision %d; audited only: %s; rulesRevision: %d enforces them", p.file.RulesRevision,
		strings.Join(audited, ", "), v1alpha1.RulesRevision)
}

// Reload reads the file and brings it into force if it is new and good.
func (f *PolicyFile) Reload() {
	f.mu.Lock()
	defer f.mu.Unlock()
	data, err := readBounded(f.path)
	if err != nil {
		// Between the steps of a replacement a file may be missing, so this is no news by itself; staying away is.
		f.reject("", err)
		return
	}
	hash := v1alpha1.Hash(data)
	if hash == f.Active().Hash {
		if f.rejected != nil {
			f.rejected = nil
			f.log.Info("The policy file is again the one in force", "path", f.path, "hash", hash)
		}
		return
	}
	active, err := compile(data)
	if err != nil {
		f.reject(hash, err)
		return
	}
	f.rejected = nil
	f.activate(active)
}

// reject keeps the policy in force. An error that was already told is not told again.
func (f *PolicyFile) reject(hash string, err error) {
	if f.rejected != nil && f.rejected.Error() == err.Error() {
		return
	}
	f.rejected = err
	f.metrics.policyRejected()
	f.log.Error("The policy file cannot be used; the last good one stays in force", "path", f.path, "hash", hash,
		"inForce", f.Active().Hash, "error", err)
}

func (f *PolicyFile) activate(p *activePolicy) {
	f.active.Store(p)
	f.metrics.policyLoaded(p.Hash, time.Now())
	f.log.Info("A policy is in force", "path", f.path, "hash", p.Hash, "profiles", len(p.coverage),
		"rulesRevision", p.file.RulesRevision)
	if err := p.auditedOnly(); err != nil {
		f.log.Warn("Some rules are newer than the policy and are not enforced", "path", f.path, "hash", p.Hash, "reason", err)
	}
	if f.OnChange != nil {
		f.OnChange(p.coverage)
	}
}

func readBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, v1alpha1.MaxSize+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > v1alpha1.MaxSize:
		return nil, fmt.Errorf("%s: larger than %d bytes", path, v1alpha1.MaxSize)
	case len(data) == 0:
		return nil, errors.New(path + ": empty")
	}
	return data, nil
}

func compile(data []byte) (*activePolicy, error) {
	file, err := v1alpha1.Decode(data)
	if err != nil {
		return nil, err
	}
	compiled, err := policy.New(file)
	if err != nil {
		return nil, err
	}
	active := &activePolicy{
		Active: Active{Policy: policyAdapter{compiled}, Hash: v1alpha1.Hash(data)},
		file:   file, selfDelete: file.SelfDelete, gateway: file.Identities.Gateway,
	}
	for i := range file.Profiles {
		active.coverage = append(active.coverage, file.Profiles[i].Namespaces)
	}
	return active, nil
}

// policyAdapter makes a policy.Policy a Policy.
type policyAdapter struct{ *policy.Policy }

// Profile implements Policy.
func (p policyAdapter) Profile(namespace string) string {
	if profile := p.Policy.Profile(namespace); profile != nil {
		return profile.Name()
	}
	return ""
}

// Inject implements Policy.
func (p policyAdapter) Inject(namespace string, d, old *appsv1.Deployment, opts inject.Options) ([]jsonpatch.Operation, []string) {
	return p.Injector(namespace).Deployment(d, old, opts)
}

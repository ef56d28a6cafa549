// Package keys has the installation's secret keys made once, and shared by its replicas in one Secret:
//
//	activity.key     by which the gateway signs what it tells agents' lifecycle managers; see package activity
//	activity.pub     its public half, which new agents are told
//	event-ids.key    by which the ids of events are made
//
// The Secret is made when it is missing. Nothing in it is ever changed here: agents know the public half for as long as
// their Pod template stays, so to rotate a key is an operator's act. See docs/install.md.
package keys

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/dexorder/agent-lifecycle/activity"
)

// SecretName is the Secret's.
const SecretName = "lifecycle-keys"

// Entries of the Secret. Beside ActivityKey the gateway signs by each entry that matches ActivityKeys.
const (
	ActivityKey    = "activity.key"
	ActivityKeys   = "activity-*.key"
	ActivityPublic = "activity.pub"
	EventIDsKey    = "event-ids.key"
)

const (
	// eventIDsKeySize is the size of that key, in bytes.
	eventIDsKeySize = 32

	// interval is how often the Secret is read, retry how soon after that could not be done.
	interval, retry = time.Minute, 5 * time.Second

	callTimeout = 10 * time.Second
)

// Keeper knows the public half of the key in the Secret. Several may make the Secret at once.
type Keeper struct {
	secrets coreclient.SecretInterface
	random  io.Reader
	log     *slog.Logger
	public  atomic.Pointer[string]
	failed  atomic.Pointer[error]
}

// New returns a Keeper for the Secret of one namespace. It needs the rights to create Secrets there, and to get SecretName.
// random is where new keys come from.
func New(secrets coreclient.SecretInterface, random io.Reader, log *slog.Logger) *Keeper {
	k := &Keeper{secrets: secrets, random: random, log: log}
	k.public.Store(new(string))
	k.note(fmt.Errorf("secret %q was not read yet", SecretName))
	return k
}

// ActivityKey returns the public half as activity.FormatPublicKey has it; empty while it is not known.
func (k *Keeper) ActivityKey() string { return *k.public.Load() }

// Check returns why the public half may be missing or old; nil if it is as it should be.
func (k *Keeper) Check() error { return *k.failed.Load() }

func (k *Keeper) note(err error) { k.failed.Store(&err) }

// Run follows the Secret until ctx ends. It never fails: agents that are made without the key work, and take activity
// from everybody.
func (k *Keeper) Run(ctx context.Context) error {
	for {
		wait := interval
		err := k.Read(ctx)
		if ctx.Err() != nil {
			return nil
		}
		before := k.Check()
		k.note(err)
		if err != nil {
			wait = retry
			if before == nil || before.Error() != err.Error() {
				k.log.WarnContext(ctx, "New agents may take activity from everybody: the gateway's key is not known", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// Read reads the Secret, and makes it if it is missing.
func (k *Keeper) Read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	secret, err := k.secrets.Get(ctx, SecretName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		if secret, err = k.create(ctx); apierrors.IsAlreadyExists(err) { // by another replica
			secret, err = k.secrets.Get(ctx, SecretName, metav1.GetOptions{})
		}
	}
	if err != nil {
		return fmt.Errorf("secret %q: %w", SecretName, err)
	}
	public, err := publicKey(secret.Data)
	if err != nil {
		return fmt.Errorf("secret %q: %w", SecretName, err)
	}
	k.public.Store(&public)
	return nil
}

func (k *Keeper) create(ctx context.Context) (*corev1.Secret, error) {
	public, private, err := ed25519.GenerateKey(k.random)
	if err != nil {
		return nil, err
	}
	text, err := activity.FormatPrivateKey(private)
	if err != nil {
		return nil, err
	}
	eventIDs := make([]byte, eventIDsKeySize)
	if _, err := io.ReadFull(k.random, eventIDs); err != nil {
		return nil, err
	}
	secret, err := k.secrets.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: SecretName, Labels: map[string]string{"app.kubernetes.io/part-of": "agent-lifecycle"}},
		Type:       corev1.SecretTypeOpaque,
		Data: map[string][]byte{
			ActivityKey: text, ActivityPublic: []byte(activity.FormatPublicKey(public)), EventIDsKey: eventIDs,
		},
	}, metav1.CreateOptions{})
	if err == nil {
		k.log.InfoContext(ctx, "The installation's keys were made", "secret", SecretName)
	}
	return secret, err
}

// publicKey returns the public half that agents are told. The gateway must be able to sign for it: agents that know another
// one would refuse its activity.
func publicKey(data map[string][]byte) (string, error) {
	text := strings.TrimSpace(string(data[ActivityPublic]))
	public, err := activity.ParsePublicKey(text)
	if err != nil {
		return "", fmt.Errorf("entry %s: %w", ActivityPublic, err)
	}
	var errs []error
	for name, key := range data {
		if further, _ := path.Match(ActivityKeys, name); !further && name != ActivityKey {
			continue
		}
		private, err := activity.ParsePrivateKey(key)
		if err != nil {
			errs = append(errs, fmt.Errorf("entry %s: %w", name, err))
			continue
		}
		if public.Equal(private.Public()) {
			return text, nil
		}
	}
	return "", errors.Join(append(errs, fmt.Errorf("entry %s is %s; accepted is the public half of entry %s, or of one like %s",
		ActivityPublic, text, ActivityKey, ActivityKeys))...)
}

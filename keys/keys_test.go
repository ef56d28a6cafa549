package keys

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/dexorder/agent-lifecycle/activity"
)

func newKeeper(client *fake.Clientset) *Keeper {
	return New(client.CoreV1().Secrets("dexorder-system"), rand.Reader, slog.New(slog.DiscardHandler))
}

// TestReplicas: replicas that start at the same moment agree on one key, and none is ever replaced.
func TestReplicas(t *testing.T) {
	client := fake.NewClientset()
	var wait sync.WaitGroup
	keepers := make([]*Keeper, 8)
	for i := range keepers {
		keepers[i] = newKeeper(client)
		wait.Go(func() {
			if err := keepers[i].Read(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	secret, err := client.CoreV1().Secrets("dexorder-system").Get(t.Context(), SecretName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	private, err := activity.ParsePrivateKey(secret.Data[ActivityKey])
	if err != nil {
		t.Fatal(err)
	}
	want := activity.FormatPublicKey(private.Public().(ed25519.PublicKey))
	for i, k := range keepers {
		if k.ActivityKey() != want {
			t.Errorf("replica %d tells agents %q, want %q", i, k.ActivityKey(), want)
		}
	}
	if len(secret.Data[EventIDsKey]) != eventIDsKeySize || len(secret.Data) != 3 {
		t.Errorf("the Secret holds %d entries, and a key for ids of %d bytes", len(secret.Data), len(secret.Data[EventIDsKey]))
	}
	for _, action := range client.Actions() {
		if verb := action.GetVerb(); verb != "get" && verb != "create" {
			t.Errorf("the Secret was touched by %s", verb)
		}
	}
}

func TestRead(t *testing.T) {
	key := func(seed byte) (private []byte, public string) {
		k := ed25519.NewKeyFromSeed(slices.Repeat([]byte{seed}, ed25519.SeedSize))
		text, err := activity.FormatPrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return text, activity.FormatPublicKey(k.Public().(ed25519.PublicKey))
	}
	first, firstPublic := key(1)
	second, secondPublic := key(2)
	for name, tc := range map[string]struct {
		data map[string][]byte
		want string
		err  string
	}{
		"as it was made":       {map[string][]byte{ActivityKey: first, ActivityPublic: []byte(firstPublic)}, firstPublic, ""},
		"with a line break":    {map[string][]byte{ActivityKey: first, ActivityPublic: []byte(firstPublic + "\n")}, firstPublic, ""},
		"during a rotation":    {map[string][]byte{ActivityKey: first, "activity-2.key": second, ActivityPublic: []byte(secondPublic)}, secondPublic, ""},
		"without a public key": {map[string][]byte{ActivityKey: first}, "", "entry activity.pub: \"\" is no public key; accepted are the 32 bytes"},
		"of another key": {map[string][]byte{ActivityKey: first, ActivityPublic: []byte(secondPublic)}, "",
			"accepted is the public half of entry activity.key, or of one like activity-*.key"},
		"of a key under another name": {map[string][]byte{ActivityKey: first, "other.key": second, ActivityPublic: []byte(secondPublic)}, "", "accepted is"},
		"of a broken key":             {map[string][]byte{ActivityKey: []byte("x"), ActivityPublic: []byte(firstPublic)}, "", "entry activity.key: there is no PEM block"},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper(fake.NewClientset(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: SecretName, Namespace: "dexorder-system"}, Data: tc.data}))
			err := k.Read(t.Context())
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("error %v, want %q", err, tc.err)
			}
			if k.ActivityKey() != tc.want {
				t.Errorf("got %q, want %q", k.ActivityKey(), tc.want)
			}
		})
	}
}

// TestForbidden: without the right to the Secret, agents are made without the key, and /readyz says why.
func TestForbidden(t *testing.T) {
	client := fake.NewClientset()
	client.PrependReactor("*", "secrets", func(k8stesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(corev1.Resource("secrets"), SecretName, nil)
	})
	k := newKeeper(client)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	for deadline := time.Now().Add(20 * time.Second); k.Check() == nil || !strings.Contains(k.Check().Error(), "forbidden"); {
		if time.Now().After(deadline) {
			t.Fatalf("the failure is not noted: %v", k.Check())
		}
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if k.ActivityKey() != "" {
		t.Errorf("it tells agents %q", k.ActivityKey())
	}
}

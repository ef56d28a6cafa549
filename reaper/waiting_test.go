package reaper

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// However few namespaces one pass looks at, and however often they are due again: each has its turn.
func TestWaiting(t *testing.T) {
	now := noon
	w := &worker{
		Options: Options{Policy: fixedPolicy{examplePolicy(t)}, Now: func() time.Time { return now }, Namespace: "dexorder-system"},
		due:     map[string]time.Time{},
	}
	w.inventory = newInventory(func(string) bool { return true }, w.Now)
	const all, looks = 20, 3
	for i := range all {
		w.inventory.put(namespaceOf(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("agent-%02d", i), Labels: map[string]string{lifecycle.LabelAgentRole: "x", lifecycle.LabelOrg: "dexorder"},
		}}), true)
	}
	w.inventory.put(namespaceOf(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "agent-foreign"}}), true)
	looked := map[string]int{}
	for range 2 * all / looks {
		for _, n := range w.waiting(w.settings(), w.due, func(*namespace) time.Time { return noon })[:looks] {
			looked[n.name]++
			w.due[n.name] = now.Add(time.Minute)
		}
		now = now.Add(time.Minute)
	}
	if len(looked) != all {
		t.Errorf("looked at %d of %d namespaces: %v", len(looked), all, looked)
	}
	now = now.Add(-time.Hour)
	if got := w.waiting(w.settings(), w.due, func(*namespace) time.Time { return noon }); len(got) != 0 {
		t.Errorf("%d namespaces wait before their time", len(got))
	}
}

package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/reaper"
)

// inPod is a client with every right that says that it acts for a Pod, as its token does.
func (c *cluster) inPod(t *testing.T, namespace, name, uid string) client.Client {
	t.Helper()
	user := controlplane.ServiceAccount(namespace, "default")
	user.Groups = append(user.Groups, "system:masters")
	user.Extra = map[string][]string{
		"authentication.kubernetes.io/pod-name": {name}, "authentication.kubernetes.io/pod-uid": {uid},
	}
	return clientOf(t, c.plane.Impersonate(user))
}

// What an agent's Pod made and forgot goes when its Pod has been gone for an hour; whatever speaks for it keeps it.
func testLeftovers(t *testing.T, c *cluster, audit string) {
	const ns, hidden = "agent-messy", "the-value-of-a-secret"
	r := c.newReaping(t)
	c.roleNamespace(t, ns)
	alive := c.liveIn(t, ns, "alive")
	dead := c.inPod(t, ns, "worker-1", "0123")
	living := c.inPod(t, ns, alive.pod.Name, string(alive.pod.UID))
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: ns, Name: name} }
	secret := func(name string, annotations ...string) *corev1.Secret {
		s := &corev1.Secret{ObjectMeta: meta(name), StringData: map[string]string{"password": hidden}}
		for i := 0; i < len(annotations); i += 2 {
			metav1.SetMetaDataAnnotation(&s.ObjectMeta, annotations[i], annotations[i+1])
		}
		return s
	}
	job := func(name string) *batchv1.Job {
		j := makes(name)[2].(*batchv1.Job)
		j.Namespace = ns
		return j
	}
	owned := configMap(ns, "owned", func(o *metav1.ObjectMeta) {
		o.OwnerReferences = []metav1.OwnerReference{ownerOf(alive.deployment)}
	})
	past, future := time.Now().Add(-time.Minute).Format(time.RFC3339), time.Now().Add(24*time.Hour).Format(time.RFC3339)
	scratch := configMap(ns, "scratch")
	scratch.Data = map[string]string{"note": "to nobody"}
	goes := []client.Object{scratch, secret("session")}
	expired := secret("expired", lifecycle.AnnotationExpiresAt, past)
	finished, works := job("finished"), job("works")
	stays := []client.Object{
		configMap(ns, "in-volume"), configMap(ns, "in-env"), configMap(ns, "without-content"), secret("in-env-from"), secret("to-pull"), secret("of-account"), owned,
		secret("guarded", lifecycle.AnnotationDoNotReap, "true"),
		secret("garbage", lifecycle.AnnotationExpiresAt, "soon"), secret("lasting", lifecycle.AnnotationExpiresAt, future), works,
	}
	for _, o := range append(append([]client.Object{expired, finished}, goes...), stays...) {
		if err := dead.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if o.GetLabels()[lifecycle.LabelCreatedByPodUID] != "0123" {
			t.Fatalf("%s has no stamp: %v", o.GetName(), o.GetLabels())
		}
	}
	mine, peoples := configMap(ns, "mine"), configMap(ns, "peoples")
	if err := living.Create(t.Context(), mine); err != nil {
		t.Fatal(err)
	}
	c.create(t, peoples)
	root := configMap(ns, "kube-root-ca.crt")
	stays = append(stays, mine, peoples, root)
	c.create(t, agent("refers", func(d *appsv1.Deployment) { d.Namespace, d.Spec.Replicas = ns, ptr(int32(0)) }, pod(func(spec *corev1.PodSpec) {
		spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "to-pull"}}
		spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{
			ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "in-volume"}},
		}}}
		spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{
			ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "in-env"}, Key: "a"},
		}}}
		spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "in-env-from"},
		}}}
	})))
	c.create(t, &corev1.ServiceAccount{ObjectMeta: meta("worker"), ImagePullSecrets: []corev1.LocalObjectReference{{Name: "of-account"}}})
	now := metav1.Now()
	eventually(t, "finished Job", func() (bool, error) {
		if err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(finished), finished); err != nil {
			return false, err
		}
		finished.Status.StartTime, finished.Status.CompletionTime = &now, &now
		finished.Status.Conditions = []batchv1.JobCondition{
			{Type: batchv1.JobSuccessCriteriaMet, Status: corev1.ConditionTrue, LastTransitionTime: now},
			{Type: batchv1.JobComplete, Status: corev1.ConditionTrue, LastTransitionTime: now},
		}
		err := c.Client.Status().Update(t.Context(), finished)
		return err == nil, err
	})

	var log bytes.Buffer
	var mu sync.Mutex
	var accepts []string
	watched := func(o *reaper.Options) {
		o.Logger = slog.New(slog.NewJSONHandler(&lockedWriter{w: &log, mu: &mu}, nil))
		o.Config.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return roundTripper(func(req *http.Request) (*http.Response, error) {
				if strings.Contains(req.URL.Path, "/secrets") && req.Method == http.MethodGet {
					mu.Lock()
					accepts = append(accepts, req.URL.Path+" "+req.Header.Get("Accept"))
					mu.Unlock()
				}
				return next.RoundTrip(req)
			})
		})
	}
	report := r.once(t, watched)
	if got := verdict(report, "Secret", "expired"); got != "deleted" || result(t, report, "leftovers").Reaped != 1 {
		t.Errorf("first pass: %+v", result(t, report, "leftovers"))
	}
	c.gone(t, expired)
	r.clock.pass(59 * time.Minute)
	r.once(t)
	r.clock.pass(2 * time.Minute) // older than an hour, and now first seen as orphans
	if leftovers := result(t, r.once(t), "leftovers"); leftovers.Reaped != 1 || leftovers.Error != "" {
		t.Errorf("after an hour only the finished Job goes: %+v", leftovers)
	}
	c.gone(t, finished)
	for _, o := range goes {
		if c.orphanedSince(t, o) == "" {
			t.Errorf("%s has not been seen as an orphan", o.GetName())
		}
	}
	r.clock.pass(time.Hour)
	leftovers := result(t, r.once(t, watched), "leftovers")
	if leftovers.Reaped != len(goes) || leftovers.Error != "" {
		t.Errorf("after two hours: %+v", leftovers)
	}
	c.gone(t, goes...)
	for _, o := range stays {
		if c.deleting(t, o) {
			t.Errorf("%T %s was deleted", o, o.GetName())
		}
	}
	for _, o := range []client.Object{mine, owned, peoples} {
		if since := c.orphanedSince(t, o); since != "" {
			t.Errorf("%s counts as an orphan", o.GetName())
		}
	}

	mu.Lock()
	defer mu.Unlock()
	if len(accepts) == 0 {
		t.Error("no Secret was read, as far as was seen")
	}
	for _, read := range accepts {
		if !strings.Contains(read, "/namespaces/") || !strings.HasSuffix(read, " application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1") {
			t.Errorf("a Secret was read whole, or those of all namespaces: %s", read)
		}
	}
	if bytes.Contains(log.Bytes(), []byte(hidden)) || !bytes.Contains(log.Bytes(), []byte(`"session"`)) {
		t.Errorf("logged: %s", log.String())
	}
	readsOfSecrets(t, audit)
}

// readsOfSecrets looks through the audit log: nobody but the API server and the garbage collector reads Secrets of all namespaces.
func readsOfSecrets(t *testing.T, audit string) {
	t.Helper()
	f, err := os.Open(audit)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	seen := 0
	for lines.Scan() {
		type account struct{ Username string }
		var e struct {
			Verb, RequestURI string
			User             account
			ImpersonatedUser *account
			ObjectRef        *struct{ Resource, Namespace string }
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		user := e.User.Username
		if e.ImpersonatedUser != nil {
			user = e.ImpersonatedUser.Username
		}
		if !strings.HasPrefix(user, "system:serviceaccount:dexorder-system:") || e.ObjectRef == nil || e.ObjectRef.Resource != "secrets" {
			continue
		}
		seen++
		if e.ObjectRef.Namespace == "" {
			t.Errorf("%s: %s of all Secrets: %s", user, e.Verb, e.RequestURI)
		}
	}
	if seen == 0 || lines.Err() != nil {
		t.Errorf("%d reads of Secrets in the audit log, %v", seen, lines.Err())
	}
}

type lockedWriter struct {
	w  *bytes.Buffer
	mu *sync.Mutex
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

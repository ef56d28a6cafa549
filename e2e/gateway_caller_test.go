//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"
)

const (
	webNamespace    = "web"
	gatewayAudience = "agent-gateway"
	gatewayURL      = "http://" + gatewayName + "." + systemNamespace + ".svc"
)

// frontend is a Pod that calls the gateway at its Service, as the account that e2e/gateway allows, with the token that the kubelet
// gives it.
type frontend struct {
	client *http.Client
	url    string
}

// startFrontend runs a frontend for the length of the test.
func startFrontend(t *testing.T) *frontend {
	t.Helper()
	core, ctx := client.CoreV1(), t.Context()
	_, err := core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: webNamespace}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	for _, name := range []string{"frontend", "stranger"} {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := core.ServiceAccounts(webNamespace).Create(ctx, account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "frontend-"},
		Spec: corev1.PodSpec{
			ServiceAccountName: "frontend",
			Containers: []corev1.Container{{
				Name: "frontend", Image: agentImage,
				ReadinessProbe: &corev1.Probe{
					PeriodSeconds: 1,
					ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(8080)}},
				},
				VolumeMounts: []corev1.VolumeMount{{Name: "gateway", MountPath: "/var/run/secrets/gateway"}},
			}},
			Volumes: []corev1.Volume{{Name: "gateway", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
					Audience: gatewayAudience, ExpirationSeconds: new(int64(600)), Path: "token",
				}}},
			}}}},
			TerminationGracePeriodSeconds: new(int64(1)),
		},
	}
	pod, err = core.Pods(webNamespace).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := core.Pods(webNamespace).Delete(context.WithoutCancel(ctx), pod.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	eventually(t, lifeTimeout, func(ctx context.Context) error {
		now, err := core.Pods(webNamespace).Get(ctx, pod.Name, metav1.GetOptions{})
		if err != nil || len(now.Status.ContainerStatuses) == 0 || !now.Status.ContainerStatuses[0].Ready {
			return fmt.Errorf("the frontend is not ready: %w", err)
		}
		return nil
	})
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return &frontend{client: httpClient, url: config.Host + "/api/v1/namespaces/" + webNamespace + "/pods/" + pod.Name + ":8080/proxy/call"}
}

// own has a frontend show its own token.
const own = "own"

// open sends a request to the gateway and returns the answer as it begins. show is the header Authorization; it may be own.
func (f *frontend) open(ctx context.Context, show, method, path, body string) (*http.Response, error) {
	target := f.url + "?url=" + url.QueryEscape(gatewayURL+path)
	request, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if show != own {
		request.Header.Set("Show", show)
	}
	response, err := f.client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.Header.Get("Called") == "" {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1000))
		response.Body.Close()
		return nil, fmt.Errorf("%s %s did not reach the gateway: %s %s", method, path, response.Status, text)
	}
	return response, nil
}

// answer is what the gateway has answered with.
type answer struct {
	code int
	body string
}

// into decodes the body.
func (a *answer) into(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		t.Fatalf("%s: %v", a.body, err)
	}
}

// ask sends a request to the gateway. It may be called from any goroutine.
func (f *frontend) ask(ctx context.Context, show, method, path, body string) (*answer, error) {
	response, err := f.open(ctx, show, method, path, body)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return &answer{response.StatusCode, string(text)}, err
}

// tokenOf makes a token of an account in the frontend's namespace, as the header Authorization has it.
func tokenOf(t *testing.T, account, audience string) string {
	t.Helper()
	issued, err := client.CoreV1().ServiceAccounts(webNamespace).CreateToken(t.Context(), account, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return "Bearer " + issued.Status.Token
}

// sent is a server-sent event.
type sent struct{ name, data string }

// events reads server-sent events until the test ends.
type events struct {
	t    *testing.T
	sent chan sent
	all  []string
}

// listen opens a stream of events.
func (f *frontend) listen(t *testing.T, path string) *events {
	t.Helper()
	response, err := f.open(t.Context(), own, http.MethodGet, path, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	if got := response.Header.Get("Content-Type"); response.StatusCode != http.StatusOK || got != "text/event-stream" {
		t.Fatalf("GET %s: %s, content type %q", path, response.Status, got)
	}
	e := &events{t: t, sent: make(chan sent, 100)}
	go func() {
		defer close(e.sent)
		var now sent
		for lines := bufio.NewScanner(response.Body); lines.Scan(); {
			field, value, _ := strings.Cut(lines.Text(), ": ")
			switch {
			case field == "event":
				now.name = value
			case field == "data":
				now.data = value
			case lines.Text() == "" && now.name != "":
				e.sent <- now
				now = sent{}
			}
		}
	}()
	return e
}

// next waits for the next event, which must have that name.
func (e *events) next(name string) (data string) {
	e.t.Helper()
	select {
	case got, open := <-e.sent:
		e.all = append(e.all, got.name)
		if !open || got.name != name {
			e.t.Fatalf("event %q %s, want %q; all are %q", got.name, got.data, name, e.all)
		}
		return got.data
	case <-time.After(lifeTimeout):
		e.t.Fatalf("there is no event %q after %q", name, e.all)
	}
	return ""
}

// deadline is when the agent stops, as a warning says.
func (e *events) deadline() time.Time {
	e.t.Helper()
	var warning struct {
		Deadline    time.Time
		SecondsLeft float64
	}
	if err := json.Unmarshal([]byte(e.next("warning")), &warning); err != nil {
		e.t.Fatal(err)
	}
	if warning.Deadline.IsZero() || warning.SecondsLeft <= 0 {
		e.t.Errorf("the warning does not say what is left: %+v", warning)
	}
	return warning.Deadline
}

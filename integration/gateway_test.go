package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/gateway"
	"github.com/dexorder/agent-lifecycle/idle"
	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/internal/installation"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

const gatewayManifests = "../manifests/components/gateway/"

// TestGateway shows what users see of the gateway, with the rights that the manifests give and the policy in force. The parts share a
// cluster; each has users of its own.
func TestGateway(t *testing.T) {
	t.Parallel()
	// A reaper would set the owners that the gateway has forgotten.
	c := installWith(t, controlplane.Options{ControllerManager: true}, "--reaper=false")
	for _, file := range []string{"service-account.yaml", "rbac.yaml"} {
		objects, err := installation.ReadObjects(gatewayManifests + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			c.create(t, o)
		}
	}
	n := startNode(t, c)
	first := c.startGateway(t, n, nil)
	second := c.startGateway(t, n, nil)
	t.Run("rights", func(t *testing.T) { testGatewayRights(t, c) })
	t.Run("callers", func(t *testing.T) { testCallers(t, c, n) })
	t.Run("one agent", func(t *testing.T) { testOneAgent(t, c, first, second) })
	t.Run("ids of any shape", func(t *testing.T) { testIDs(t, c, first) })
	t.Run("refusals", func(t *testing.T) { testGatewayRefusals(t, c, first) })
	t.Run("wake", func(t *testing.T) { testWake(t, c, n, first) })
	t.Run("readiness deadline", func(t *testing.T) { testReadinessDeadline(t, c, n) })
	t.Run("own time", func(t *testing.T) { testOwnTime(t, c, n) })
	t.Run("delivered once", func(t *testing.T) { testOnce(t, n, first) })
	t.Run("events", func(t *testing.T) { testGatewayEvents(t, c, n, first) })
	t.Run("activity and snooze", func(t *testing.T) { testManager(t, n, first) })
	t.Run("tiers", func(t *testing.T) { testTiers(t, c, first) })
	t.Run("service of before", func(t *testing.T) { testServiceWithAddress(t, c, first) })
	t.Run("late watches", func(t *testing.T) { testLateWatches(t, c, n) })
	t.Run("broken template", func(t *testing.T) { testBrokenTemplate(t, c, n) })
	t.Run("no API server", func(t *testing.T) { testNoAPIServer(t, c, n) })
	t.Run("request", func(t *testing.T) { testRequest(t, c, first) })
}

// exampleTiers are those of the example policy.
type exampleTiers struct{}

func (exampleTiers) StopsWhenIdle(userType lifecycle.UserType) bool {
	return userType != lifecycle.Enterprise
}

func (exampleTiers) DeletesStorage(userType lifecycle.UserType) bool {
	return userType == lifecycle.Anonymous
}

// heardNotices remembers what was announced.
type heardNotices struct {
	mu  sync.Mutex
	all []gateway.Notice
}

func (h *heardNotices) Announce(n gateway.Notice) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, n)
}

func (h *heardNotices) of(deployment string) (types []gateway.NoticeType) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range h.all {
		if n.Deployment == deployment {
			types = append(types, n.Type)
		}
	}
	return types
}

// connected is a gateway that runs, and somebody who may call it.
type connected struct {
	url, token string
	notices    *heardNotices
	registry   *prometheus.Registry
}

func (c *cluster) startGateway(t *testing.T, n *node, change func(*gateway.Options)) *connected {
	t.Helper()
	api := kubernetes.NewForConfigOrDie(c.gatewayAccess())
	text, err := os.ReadFile(gatewayManifests + "agent.yaml")
	if err != nil {
		t.Fatal(err)
	}
	template, err := gateway.ParseTemplate(text)
	if err != nil {
		t.Fatal(err)
	}
	g := &connected{notices: &heardNotices{}, registry: prometheus.NewRegistry()}
	options := gateway.Options{
		Client: api, Namespace: agents, Template: template, Tiers: exampleTiers{}, DefaultUserType: lifecycle.Free,
		Authenticator: gateway.NewTokenReviews(api.AuthenticationV1().TokenReviews(), gateway.TokenReviewOptions{
			Audience: "agent-gateway", Allowed: []string{"system:serviceaccount:default:frontend"}, Now: time.Now,
		}),
		Announcer: g.notices, Address: n.address, WakeTimeout: time.Minute, Grace: 5 * time.Second, Limits: gateway.DefaultLimits(),
		Now: time.Now, Metrics: gateway.NewMetrics(g.registry), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if change != nil {
		change(&options)
	}
	running, err := gateway.New(options)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- running.Run(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the gateway ended with %v", err)
		}
	})
	eventually(t, "gateway", func() (bool, error) { err := running.Ready(); return err == nil, err })
	g.url, g.token = "http://"+listener.Addr().String(), c.callerToken(t, "frontend", "agent-gateway")
	return g
}

// gatewayAccess is the gateway's.
func (c *cluster) gatewayAccess() *rest.Config {
	return c.plane.Impersonate(controlplane.ServiceAccount(installation.SystemNamespace, "gateway"))
}

// callerToken makes an account in default, if need be, and a token of it for an audience.
func (c *cluster) callerToken(t *testing.T, account, audience string) string {
	t.Helper()
	accounts := kubernetes.NewForConfigOrDie(c.plane.Config).CoreV1().ServiceAccounts(metav1.NamespaceDefault)
	_, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{})
	if client.IgnoreAlreadyExists(err) != nil {
		t.Fatal(err)
	}
	issued, err := accounts.CreateToken(t.Context(), account, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return issued.Status.Token
}

// said is an answer of the gateway.
type said struct {
	code   int
	header http.Header
	body   string
	gateway.Status
	problem struct{ Code, Detail string }
}

func (g *connected) path(user, below string) string {
	return g.url + "/v1/agents/" + url.PathEscape(user) + below
}

// ask may be called from any goroutine.
func (g *connected) ask(ctx context.Context, method, user, below, body string, headers ...string) (*said, error) {
	request, err := http.NewRequestWithContext(ctx, method, g.path(user, below), strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if g.token != "" {
		request.Header.Set("Authorization", "Bearer "+g.token)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	s := &said{code: response.StatusCode, header: response.Header, body: string(text)}
	switch response.Header.Get("Content-Type") {
	case "application/json":
		err = json.Unmarshal(text, &s.Status)
	case "application/problem+json":
		err = json.Unmarshal(text, &s.problem)
	}
	return s, err
}

func (g *connected) want(t *testing.T, code int, method, user, below, body string, headers ...string) *said {
	t.Helper()
	s, err := g.ask(t.Context(), method, user, below, body, headers...)
	if err != nil {
		t.Fatal(err)
	}
	if s.code != code {
		t.Fatalf("%s %s%s: %d %s, want %d", method, user, below, s.code, s.body, code)
	}
	return s
}

// parts are one agent's objects; nil is what there is not.
type parts struct {
	deployment *appsv1.Deployment
	claim      *corev1.PersistentVolumeClaim
	service    *corev1.Service
}

func (c *cluster) parts(t *testing.T, user string) parts {
	t.Helper()
	name := gateway.Name(user)
	p := parts{
		&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: agents, Name: name}},
		&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: agents, Name: name + "-data"}},
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: agents, Name: name}},
	}
	has := func(o client.Object) bool {
		err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(o), o)
		if client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
		return err == nil
	}
	if !has(p.deployment) {
		p.deployment = nil
	}
	if !has(p.claim) {
		p.claim = nil
	}
	if !has(p.service) {
		p.service = nil
	}
	return p
}

// ownedBy says whether the one owner is the Deployment, and holds it.
func ownedBy(o client.Object, d *appsv1.Deployment) bool {
	owners := o.GetOwnerReferences()
	return len(owners) == 1 && owners[0].UID == d.UID && owners[0].BlockOwnerDeletion != nil && *owners[0].BlockOwnerDeletion
}

// deletes deletes a Deployment as its sidecar would.
func (p parts) deletes(t *testing.T, c *cluster) {
	t.Helper()
	if err := c.Client.Delete(t.Context(), p.deployment, client.PropagationPolicy(metav1.DeletePropagationForeground)); err != nil {
		t.Fatal(err)
	}
}

func testCallers(t *testing.T, c *cluster, n *node) {
	g := c.startGateway(t, n, nil)
	good := g.token
	for _, tt := range []struct {
		name, token string
		code        int
	}{
		{"nobody", "", http.StatusUnauthorized},
		{"nonsense", "nonsense", http.StatusUnauthorized},
		{"another audience", c.callerToken(t, "frontend", "something-else"), http.StatusUnauthorized},
		{"a stranger", c.callerToken(t, "stranger", "agent-gateway"), http.StatusForbidden},
		{"who may", good, http.StatusOK},
	} {
		g.token = tt.token
		for range 2 { // the second time from memory
			if s := g.want(t, tt.code, http.MethodGet, "caller", "", ""); tt.code == http.StatusUnauthorized && s.header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%s: no WWW-Authenticate", tt.name)
			}
		}
	}
	local := c.startGateway(t, n, func(o *gateway.Options) { o.LoopbackWithoutToken = true })
	local.token = ""
	local.want(t, http.StatusOK, http.MethodGet, "caller", "", "")
	local.want(t, http.StatusUnauthorized, http.MethodGet, "caller", "", "", "X-Forwarded-For", "198.51.100.1")
	local.token = "nonsense"
	local.want(t, http.StatusUnauthorized, http.MethodGet, "caller", "", "")
}

func testOneAgent(t *testing.T, c *cluster, gateways ...*connected) {
	const user = "one@example.com"
	var group sync.WaitGroup
	pods, created := make(chan string, 100), make(chan int, 100)
	for i := range 50 {
		g := gateways[i%len(gateways)]
		group.Go(func() {
			s, err := g.ask(t.Context(), http.MethodPut, user, "", `{"userType":"paid"}`)
			if err != nil || s.code != http.StatusCreated && s.code != http.StatusOK || s.UserType != lifecycle.Paid {
				t.Errorf("PUT: %+v, %v", s, err)
				return
			}
			created <- s.code
			s, err = g.ask(t.Context(), http.MethodGet, user, "/connect/hello", "")
			if err != nil || s.code != http.StatusOK {
				t.Errorf("connect: %+v, %v", s, err)
				return
			}
			pod, _, _ := strings.Cut(s.body, " ")
			pods <- pod
		})
	}
	group.Wait()
	close(pods)
	first, count := "", 0
	for pod := range pods {
		count++
		if first == "" {
			first = pod
		}
		if pod != first {
			t.Errorf("one was connected to %s, another to %s", first, pod)
		}
	}
	if count != 50 {
		t.Errorf("%d of 50 were connected", count)
	}
	var deployments appsv1.DeploymentList
	if err := c.Client.List(t.Context(), &deployments, client.InNamespace(agents)); err != nil {
		t.Fatal(err)
	}
	deployments.Items = slices.DeleteFunc(deployments.Items, func(d appsv1.Deployment) bool {
		return d.Annotations[lifecycle.AnnotationUser] != user
	})
	if len(deployments.Items) != 1 || deployments.Items[0].Generation != 1 {
		t.Errorf("%d Deployments, want one that nobody has changed: %+v", len(deployments.Items), deployments.Items)
	}
	made := 0.0
	for _, g := range gateways {
		families, err := g.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "agent_lifecycle_gateway_agents_created_total" {
				for _, m := range f.Metric {
					made += m.GetCounter().GetValue()
				}
			}
		}
	}
	if made != 1 {
		t.Errorf("%v were made", made)
	}
	p := c.parts(t, user)
	for _, o := range []client.Object{p.deployment, p.claim, p.service} {
		if labels := o.GetLabels(); labels[lifecycle.LabelDeployment] != gateway.Name(user) || labels[lifecycle.LabelUserType] != "paid" {
			t.Errorf("%T has labels %v", o, labels)
		}
	}
	if !ownedBy(p.service, p.deployment) || len(p.claim.OwnerReferences) > 0 {
		t.Errorf("the Service is owned by %v, the claim by %v", p.service.OwnerReferences, p.claim.OwnerReferences)
	}
	if p.service.Spec.ClusterIP != corev1.ClusterIPNone {
		t.Errorf("the Service has the address %s, which is told to other users' agents", p.service.Spec.ClusterIP)
	}
	s := gateways[0].want(t, http.StatusOK, http.MethodGet, user, "", "")
	if s.State != lifecycle.Running || !s.Ready || s.Storage != "kept" || s.Since.IsZero() || s.Reason == "" ||
		s.Endpoint != "http://"+gateway.Name(user)+".dexorder-agents.svc:3000" {
		t.Errorf("status %s", s.body)
	}
}

// A Service that a gateway of v0.1.0 made has an address, which the API server lets nobody take away: it stays, and its
// agent is served.
func testServiceWithAddress(t *testing.T, c *cluster, g *connected) {
	const user = "before@example.com"
	g.want(t, http.StatusCreated, http.MethodPut, user, "", `{"userType":"free"}`)
	p := c.parts(t, user)
	stored := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: agents, Name: p.service.Name, Labels: p.service.Labels, Annotations: p.service.Annotations, OwnerReferences: p.service.OwnerReferences,
		},
		Spec: corev1.ServiceSpec{Selector: p.service.Spec.Selector, Ports: p.service.Spec.Ports},
	}
	if err := c.Client.Delete(t.Context(), p.service); err != nil {
		t.Fatal(err)
	}
	if err := c.Client.Create(t.Context(), stored); err != nil {
		t.Fatal(err)
	}
	g.want(t, http.StatusOK, http.MethodPut, user, "", "")
	if now := c.parts(t, user).service; now.UID != stored.UID || now.ResourceVersion != stored.ResourceVersion {
		t.Errorf("a PUT that changes nothing has changed the Service: %+v", now)
	}
	g.want(t, http.StatusOK, http.MethodPut, user, "", `{"userType":"paid"}`)
	now := c.parts(t, user).service
	if now.UID != stored.UID || now.Labels[lifecycle.LabelUserType] != "paid" || now.Spec.ClusterIP != stored.Spec.ClusterIP ||
		now.Spec.ClusterIP == corev1.ClusterIPNone {
		t.Errorf("the Service with the address %s has become %+v", stored.Spec.ClusterIP, now)
	}
	g.want(t, http.StatusOK, http.MethodGet, user, "/connect/", "")
}

func testIDs(t *testing.T, c *cluster, g *connected) {
	for _, user := range []string{"a/b", "..", "Größe 日本", "\xff\xfe", "%2F", "x?y#z", strings.Repeat("u", 1024)} {
		g.want(t, http.StatusCreated, http.MethodPut, user, "", "")
		g.want(t, http.StatusOK, http.MethodPut, user, "", "")
		p := c.parts(t, user)
		if p.deployment == nil || p.claim == nil || p.service == nil {
			t.Errorf("%q has %+v", user, p)
		} else if got := p.deployment.Annotations[lifecycle.AnnotationUser]; got != url.PathEscape(user) {
			t.Errorf("%q is annotated as %q", user, got)
		}
	}
	g.want(t, http.StatusBadRequest, http.MethodPut, strings.Repeat("u", 1025), "", "")
	g.want(t, http.StatusNotFound, http.MethodGet, "a", "/nonsense", "")
	g.want(t, http.StatusMethodNotAllowed, http.MethodDelete, "a", "", "")
	g.want(t, http.StatusNotFound, http.MethodGet, "never-seen", "/connect/", "")
	if s := g.want(t, http.StatusOK, http.MethodGet, "never-seen", "", ""); s.State != lifecycle.Deleted || s.Storage != "none" {
		t.Errorf("status of nobody: %s", s.body)
	}
}

func testGatewayRefusals(t *testing.T, c *cluster, g *connected) {
	for _, tt := range []struct{ body, code, detail string }{
		{`{"userType":"premium"}`, "request", `user type "premium" is not one of`},
		{`{"usertypo":"free"}`, "request", "unknown field"},
		{`{} {}`, "request", "something after"},
		{`{"env":{"USER_TYPE":"enterprise"}}`, "request", "belongs to the lifecycle"},
		{`{"env":{"A-B":"1"}}`, "request", "is not accepted"},
		{`{"image":"docker.io/evil/agent:v1"}`, "policy", "image-allowlist"},
	} {
		code := http.StatusBadRequest
		if tt.code == "policy" {
			code = http.StatusUnprocessableEntity
		}
		s := g.want(t, code, http.MethodPut, "refused", "", tt.body)
		if s.problem.Code != tt.code || !strings.Contains(s.problem.Detail, tt.detail) {
			t.Errorf("%s: %s, want code %s and %q", tt.body, s.body, tt.code, tt.detail)
		}
	}
	if p := c.parts(t, "refused"); p.deployment != nil || p.claim != nil {
		t.Errorf("something was made: %+v", p)
	}
	// Somebody else's objects under the name are not touched.
	c.create(t, agent(gateway.Name("squatted")))
	s := g.want(t, http.StatusConflict, http.MethodPut, "squatted", "", "")
	if s.problem.Code != "name-taken" {
		t.Errorf("a foreign Deployment: %s", s.body)
	}
	large := g.want(t, http.StatusRequestEntityTooLarge, http.MethodPut, "refused", "", `{"image":"`+strings.Repeat("x", 70<<10)+`"}`)
	if large.problem.Code != "too-large" {
		t.Errorf("a large body: %s", large.body)
	}
}

// A connection during a foreground deletion is held until the old agent has gone, and reaches the new one, with the old files.
func testWake(t *testing.T, c *cluster, n *node, g *connected) {
	const user = "sleeper"
	name := gateway.Name(user)
	g.want(t, http.StatusCreated, http.MethodPut, user, "", `{"env":{"GREETING":"hello $(HOME)"}}`)
	old := g.want(t, http.StatusOK, http.MethodGet, user, "/connect/", "").body
	before := c.parts(t, user)
	_, pod := n.of(t, name)
	pod.Finalizers = append(pod.Finalizers, "example.com/hold")
	if err := c.Client.Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	before.deletes(t, c)
	eventually(t, "agent that is stopping", func() (bool, error) {
		return g.want(t, http.StatusOK, http.MethodGet, user, "", "").State == lifecycle.Shutdown, nil
	})
	answered := make(chan *said, 1)
	go func() {
		s, err := g.ask(t.Context(), http.MethodPost, user, "/connect/work?a=b%20c", "files")
		if err != nil {
			t.Error(err)
		}
		answered <- s
	}()
	select {
	case s := <-answered:
		t.Fatalf("answered before the old agent had gone: %+v", s)
	case <-time.After(2 * time.Second):
	}
	c.get(t, pod)
	pod.Finalizers = nil
	if err := c.Client.Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	s := <-answered
	if s == nil || s.code != http.StatusOK || !strings.HasSuffix(s.body, " POST /work a=b%20c files") || strings.HasPrefix(s.body, strings.Fields(old)[0]) {
		t.Fatalf("answered %+v, the old one %q", s, old)
	}
	after := c.parts(t, user)
	if after.deployment.UID == before.deployment.UID || after.claim.UID != before.claim.UID || after.service.UID == before.service.UID {
		t.Errorf("before %v %v %v, after %v %v %v", before.deployment.UID, before.claim.UID, before.service.UID,
			after.deployment.UID, after.claim.UID, after.service.UID)
	}
	env := after.deployment.Spec.Template.Spec.Containers[0].Env
	if !slices.Contains(env, corev1.EnvVar{Name: "GREETING", Value: "hello $$(HOME)"}) {
		t.Errorf("it came back without its variables: %v", env)
	}
}

func testReadinessDeadline(t *testing.T, c *cluster, n *node) {
	const user = "slow"
	g := c.startGateway(t, n, func(o *gateway.Options) { o.WakeTimeout = 3 * time.Second })
	n.set(func() { n.hold[gateway.Name(user)] = true })
	g.want(t, http.StatusCreated, http.MethodPut, user, "", "")
	began := time.Now()
	s := g.want(t, http.StatusGatewayTimeout, http.MethodGet, user, "/connect/", "")
	if took := time.Since(began); took < 2*time.Second || took > 20*time.Second || s.problem.Code != "not-ready" || !strings.Contains(s.problem.Detail, "Pod") {
		t.Errorf("after %s: %s", took, s.body)
	}
	n.set(func() { n.hold[gateway.Name(user)] = false })
	eventually(t, "ready agent", func() (bool, error) {
		return g.want(t, http.StatusOK, http.MethodGet, user, "", "").Ready, nil
	})
	if r, _ := n.of(t, gateway.Name(user)); r.seen("/") != 0 {
		t.Error("a request was delivered after its caller had been answered")
	}
}

// Who comes when another's time to wait is nearly over has a time of his own.
func testOwnTime(t *testing.T, c *cluster, n *node) {
	const user = "patient"
	name := gateway.Name(user)
	g := c.startGateway(t, n, func(o *gateway.Options) { o.WakeTimeout = 6 * time.Second })
	g.want(t, http.StatusCreated, http.MethodPut, user, "", "")
	g.want(t, http.StatusOK, http.MethodGet, user, "/connect/", "")
	_, pod := n.of(t, name)
	pod.Finalizers = append(pod.Finalizers, "example.com/hold")
	if err := c.Client.Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	c.parts(t, user).deletes(t, c)
	eventually(t, "agent that is stopping", func() (bool, error) {
		return g.want(t, http.StatusOK, http.MethodGet, user, "", "").State == lifecycle.Shutdown, nil
	})
	codes := make([]int, 2)
	var group sync.WaitGroup
	for i, after := range []time.Duration{0, 4 * time.Second} {
		group.Go(func() {
			time.Sleep(after)
			if s, err := g.ask(t.Context(), http.MethodGet, user, "/connect/", ""); err == nil {
				codes[i] = s.code
			}
		})
	}
	time.Sleep(7 * time.Second)
	c.get(t, pod)
	pod.Finalizers = nil
	if err := c.Client.Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	group.Wait()
	if want := []int{http.StatusGatewayTimeout, http.StatusOK}; !slices.Equal(codes, want) {
		t.Errorf("answered with %v, want %v", codes, want)
	}
}

func testOnce(t *testing.T, n *node, g *connected) {
	const user = "once"
	g.want(t, http.StatusCreated, http.MethodPut, user, "", "")
	g.want(t, http.StatusOK, http.MethodGet, user, "/connect/a%2Fb//c", "")
	r, _ := n.of(t, gateway.Name(user))
	if r.seen("/a%2Fb//c") != 1 {
		t.Errorf("the path arrived as %v", r.requests)
	}
	if r.last.Get("Authorization") != "" || r.last.Get("X-Forwarded-For") == "" {
		t.Errorf("the agent was shown %v", r.last)
	}
	for i, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut} {
		// What package http takes for harmless to send again.
		s := g.want(t, http.StatusBadGateway, method, user, "/connect/die", "", "Idempotency-Key", "1")
		if got := r.seen("/die"); got != i+1 || s.problem.Code != "agent-failed" {
			t.Errorf("%s was delivered %d times: %s", method, got-i, s.body)
		}
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /v1/agents/%s/connect/upgrade HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", user, g.token)
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %v, %v", response, err)
	}
	defer response.Body.Close()
	fmt.Fprint(conn, "ping\n")
	if line, err := reader.ReadString('\n'); err != nil || line != "ping\n" {
		t.Errorf("after the upgrade: %q, %v", line, err)
	}
}

func testGatewayEvents(t *testing.T, c *cluster, n *node, g *connected) {
	const user = "watched"
	name := gateway.Name(user)
	n.set(func() {
		n.idle[name] = idle.Config{Enabled: true, Timeout: 4 * time.Second, CheckInterval: 200 * time.Millisecond, Warning: 2 * time.Second, SnoozeMax: time.Minute}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, g.path(user, "/events"), nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+g.token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if got := response.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Fatalf("content type %s", got)
	}
	var names []string
	went := false
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		event, is := strings.CutPrefix(lines.Text(), "event: ")
		if !is {
			continue
		}
		names = append(names, event)
		switch {
		case event == "DELETED" && len(names) == 1:
			g.want(t, http.StatusCreated, http.MethodPut, user, "", "")
		case event == "warning":
			n.goesIdle(t, name)
		case event == "SHUTDOWN" && !went:
			went = true
			c.parts(t, user).deletes(t, c)
		}
		if event == "DELETED" && went {
			break
		}
	}
	got := strings.Join(names, " ")
	if want := "DELETED CREATED RUNNING ready IDLE warning SHUTDOWN DELETED"; got != want {
		t.Errorf("events %s, want %s (%v)", got, want, lines.Err())
	}
	if got, want := g.notices.of(name), []gateway.NoticeType{gateway.NoticeIdle, gateway.NoticeWarning}; !slices.Equal(got, want) {
		t.Errorf("announced %v, want %v", got, want)
	}
	s := g.want(t, http.StatusOK, http.MethodGet, user, "", "")
	if s.State != lifecycle.Deleted || s.Storage != "kept" || s.UserType != lifecycle.Free {
		t.Errorf("afterwards: %s", s.body)
	}
}

func testManager(t *testing.T, n *node, g *connected) {
	const user = "active"
	s := g.want(t, http.StatusConflict, http.MethodPost, user, "/activity", "")
	if s.problem.Code != "asleep" {
		t.Errorf("activity of nobody: %s", s.body)
	}
	n.set(func() {
		n.idle[gateway.Name(user)] = idle.Config{Enabled: true, Timeout: time.Minute, CheckInterval: time.Second, SnoozeMax: time.Hour}
	})
	g.want(t, http.StatusCreated, http.MethodPut, user, "", "")
	g.want(t, http.StatusOK, http.MethodGet, user, "/connect/", "")
	r, _ := n.of(t, gateway.Name(user))
	eventually(t, "activity by connection", func() (bool, error) { return r.idle.Status().LastActivity.Source == "gateway", nil })
	g.want(t, http.StatusNoContent, http.MethodPost, user, "/activity", `{"source":"test"}`)
	if got := r.idle.Status().LastActivity.Source; got != "test" {
		t.Errorf("last activity is %q", got)
	}
	if s := g.want(t, http.StatusOK, http.MethodPost, user, "/snooze", `{"seconds":600}`); !strings.Contains(s.body, "grantedSeconds") {
		t.Errorf("snooze: %s", s.body)
	}
	if r.idle.Status().Snooze == nil {
		t.Error("nothing was put off")
	}
	g.want(t, http.StatusBadRequest, http.MethodPost, user, "/snooze", `{"seconds":-1}`)
}

// From the request through labels, environment and owner references to what a deletion takes along.
func testTiers(t *testing.T, c *cluster, g *connected) {
	g.want(t, http.StatusCreated, http.MethodPut, "visitor", "", `{"userType":"anonymous"}`)
	visitor := c.parts(t, "visitor")
	if !ownedBy(visitor.claim, visitor.deployment) || !ownedBy(visitor.service, visitor.deployment) {
		t.Errorf("owners of claim %v, of Service %v", visitor.claim.OwnerReferences, visitor.service.OwnerReferences)
	}
	visitor.deletes(t, c)
	c.gone(t, visitor.deployment, visitor.claim, visitor.service)
	g.want(t, http.StatusNotFound, http.MethodGet, "visitor", "/connect/", "")

	const user = "raised"
	g.want(t, http.StatusCreated, http.MethodPut, user, "", `{"userType":"anonymous"}`)
	before := c.parts(t, user)
	s := g.want(t, http.StatusOK, http.MethodPut, user, "", `{"userType":"paid"}`)
	if s.UserType != lifecycle.Paid || s.Storage != "kept" {
		t.Errorf("raised: %s", s.body)
	}
	after := c.parts(t, user)
	if after.claim.UID != before.claim.UID || len(after.claim.OwnerReferences) > 0 || after.claim.Labels[lifecycle.LabelUserType] != "paid" {
		t.Errorf("the claim is %s, owned by %v, of %v", after.claim.UID, after.claim.OwnerReferences, after.claim.Labels)
	}
	template := after.deployment.Spec.Template
	timeout := slices.IndexFunc(template.Spec.Containers[0].Env, func(e corev1.EnvVar) bool { return e.Name == lifecycle.EnvIdleTimeoutMinutes })
	if template.Labels[lifecycle.LabelUserType] != "paid" || timeout < 0 || template.Spec.Containers[0].Env[timeout].Value != "60" {
		t.Errorf("the template has labels %v, env %v", template.Labels, template.Spec.Containers[0].Env)
	}
	if s := g.want(t, http.StatusConflict, http.MethodPut, user, "", `{"userType":"anonymous"}`); s.problem.Code != "user-type" {
		t.Errorf("lowered: %s", s.body)
	}
	after.deletes(t, c)
	c.gone(t, after.deployment, after.service)
	if left := c.parts(t, user); left.claim == nil || left.claim.DeletionTimestamp != nil {
		t.Fatalf("the files are gone: %+v", left.claim)
	}
	if s := g.want(t, http.StatusConflict, http.MethodPut, user, "", `{"userType":"anonymous"}`); s.problem.Code != "user-type" {
		t.Errorf("lowered while it sleeps: %s", s.body)
	}
	g.want(t, http.StatusOK, http.MethodGet, user, "/connect/", "")
	back := c.parts(t, user)
	if back.claim.UID != before.claim.UID || back.deployment.Labels[lifecycle.LabelUserType] != "paid" {
		t.Errorf("it came back as %v with claim %s", back.deployment.Labels, back.claim.UID)
	}
}

func testRequest(t *testing.T, c *cluster, g *connected) {
	const user = "particular"
	g.want(t, http.StatusCreated, http.MethodPut, user, "", `{"image":"ghcr.io/dexorder/agent:v2","env":{"A":"1","HOME":"/data/home"}}`)
	first := c.parts(t, user)
	g.want(t, http.StatusOK, http.MethodPut, user, "", `{}`)
	if again := c.parts(t, user); again.deployment.Generation != first.deployment.Generation {
		t.Errorf("a request for nothing changed the agent: generation %d, then %d", first.deployment.Generation, again.deployment.Generation)
	}
	g.want(t, http.StatusOK, http.MethodPut, user, "", `{"env":{"B":"2"}}`)
	container := c.parts(t, user).deployment.Spec.Template.Spec.Containers[0]
	var names []string
	for _, e := range container.Env {
		if len(e.Name) == 1 || e.Name == "HOME" {
			names = append(names, e.Name+"="+e.Value)
		}
	}
	if container.Image != "ghcr.io/dexorder/agent:v2" || !slices.Equal(names, []string{"HOME=/data", "B=2"}) {
		t.Errorf("image %s, env %v", container.Image, names)
	}
	if !bytes.Contains([]byte(c.parts(t, user).claim.Annotations[lifecycle.AnnotationRequest]), []byte(`"B":"2"`)) {
		t.Error("the claim does not remember")
	}
}

package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

const (
	// pathPrefix is before a user's id.
	pathPrefix = "/v1/agents/"

	// maxBody bounds the body of a Request, in bytes; readTimeout is for reading it.
	maxBody     = 64 << 10
	readTimeout = 10 * time.Second

	// restTimeout is for what is left of a body when the request has been answered.
	restTimeout = time.Second

	// maxHeader bounds a request's headers, in bytes.
	maxHeader = 32 << 10
)

// Handler serves the API, which docs/agent-gateway.openapi.yaml describes.
func (g *Gateway) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if startsHTTP2(r) {
			g.refuseHTTP2(w)
			g.options.Metrics.answered("none", http.StatusHTTPVersionNotSupported)
			return
		}
		counted := &recorder{ResponseWriter: w}
		route := g.route(counted, r)
		if r.ContentLength != 0 {
			// Package http reads what is left of a body, and a caller who does not send it would keep the connection for ever.
			_ = http.NewResponseController(counted).SetReadDeadline(time.Now().Add(restTimeout)) // one that was taken over has none
		}
		if counted.code == 0 {
			counted.code = http.StatusOK
		}
		g.options.Metrics.answered(route, counted.code)
		g.options.Logger.Debug("Answered", "method", r.Method, "path", r.URL.Path, "route", route, "code", counted.code)
	})
}

// routes are what follows the user's id, with the methods that are accepted there; none is all.
var routes = map[string][]string{
	"": {http.MethodGet, http.MethodPut}, "events": {http.MethodGet}, "activity": {http.MethodPost}, "snooze": {http.MethodPost}, "connect": nil,
}

// route answers a request and returns what it was for. The path is taken apart as it was sent: an id may hold slashes and
// dots, and what is for the agent is not to be cleaned.
func (g *Gateway) route(w http.ResponseWriter, r *http.Request) string {
	if r.ContentLength != 0 {
		// The body of a request that is refused is not read: package http would wait for it before it sends the answer.
		w.Header().Set("Connection", "close")
	}
	rest, ok := strings.CutPrefix(r.URL.EscapedPath(), pathPrefix)
	escaped, rest, _ := strings.Cut(rest, "/")
	verb, rest, _ := strings.Cut(rest, "/")
	methods, known := routes[verb]
	if !ok || !known || rest != "" && verb != "connect" {
		problem{Status: http.StatusNotFound, Code: "path", Detail: "there is nothing at this path; see docs/agent-gateway.openapi.yaml"}.write(w)
		return "none"
	}
	route := strings.TrimSuffix("agents/"+verb, "/")
	if methods != nil && !slices.Contains(methods, r.Method) {
		w.Header().Set("Allow", strings.Join(methods, ", "))
		problem{Status: http.StatusMethodNotAllowed, Code: "method", Detail: "accepted is " + strings.Join(methods, ", ")}.write(w)
		return route
	}
	if err := g.authenticate(r); err != nil {
		if errors.Is(err, ErrToken) {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		g.fail(w, r, err)
		return route
	}
	g.strangers.trust(r.Context())
	user, err := url.PathUnescape(escaped)
	if err == nil {
		err = checkUser(user)
	}
	if err != nil {
		g.fail(w, r, fmt.Errorf("%w: %w", errRequest, err))
		return route
	}
	release, ok := g.admit(w, r, user)
	if !ok {
		return route
	}
	defer release()
	w.Header().Del("Connection")
	switch verb {
	case "connect":
		g.connect(w, r, user, rest)
		return route
	case "events":
		err = g.streamEvents(w, r, user)
	case "activity", "snooze":
		err = g.forward(w, r, user, "/v1/"+verb)
	default:
		if r.Method == http.MethodPut {
			err = g.put(w, r, user)
		} else {
			err = g.get(w, r, user)
		}
	}
	if err != nil {
		g.fail(w, r, err)
	}
	return route
}

// readBody reads a bounded body in bounded time. The deadline must not outlast it: the server takes one that passes for a caller who has
// hung up.
func readBody(w http.ResponseWriter, r *http.Request, longest int64) ([]byte, error) {
	if err := checkLength(r, longest); err != nil {
		return nil, err
	}
	controller := http.NewResponseController(w)
	_ = controller.SetReadDeadline(time.Now().Add(readTimeout)) // a test's recorder has none
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, longest))
	_ = controller.SetReadDeadline(time.Time{})
	if large := tooLarge(err); large != nil {
		return nil, large
	}
	if err != nil {
		return nil, fmt.Errorf("%w: body: %w", errRequest, err)
	}
	return body, nil
}

func (g *Gateway) authenticate(r *http.Request) error {
	token, has := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case g.options.Authenticator == nil:
		return nil
	case !has && g.options.LoopbackWithoutToken && fromLoopback(r):
		return nil
	case !has || token == "":
		return fmt.Errorf("%w: there is none; send Authorization: Bearer TOKEN", ErrToken)
	}
	_, err := g.options.Authenticator.Authenticate(r.Context(), token, addressOf(r.RemoteAddr))
	if errors.Is(err, ErrBusy) {
		g.options.Metrics.limited.WithLabelValues(limitedTokens).Inc()
	}
	return err
}

// fromLoopback says whether the caller is on this machine, and no proxy that speaks for somebody else.
func fromLoopback(r *http.Request) bool {
	if r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Forwarded") != "" {
		return false
	}
	return addressOf(r.RemoteAddr).Unmap().IsLoopback()
}

// admit answers for users who ask too much. release must be called when the request is done.
func (g *Gateway) admit(w http.ResponseWriter, r *http.Request, user string) (release func(), ok bool) {
	s, _ := g.fleet.look(Name(user))
	userType := s.UserType
	if userType == "" {
		userType = g.options.DefaultUserType
	}
	wait, ok := g.limiter.request(user, userType)
	if !ok {
		g.options.Metrics.limited.WithLabelValues(limitedRequest).Inc()
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
		problem{
			Status: http.StatusTooManyRequests, Code: "limit", Detail: fmt.Sprintf("too many requests for this user, of user type %s", userType),
		}.write(w)
		return nil, false
	}
	release, limit, err := g.limiter.connect(user, userType)
	if err != nil {
		g.options.Metrics.limited.WithLabelValues(limit).Inc()
		g.fail(w, r, err)
		return nil, false
	}
	return release, true
}

func (g *Gateway) put(w http.ResponseWriter, r *http.Request, user string) error {
	body, err := readBody(w, r, maxBody)
	if err != nil {
		return err
	}
	request, err := decodeRequest(body)
	if err != nil {
		return fmt.Errorf("%w: %w", errRequest, err)
	}
	b, err := g.ensureHeld(r.Context(), user, request)
	if err != nil {
		return err
	}
	// What was just written is newer than what is watched.
	var s Status
	if pod := g.fleet.podOf(b.deployment.Name); pod == nil || b.created {
		s = statusOf(b.deployment, nil, saying{})
	} else {
		s, _ = g.fleet.look(b.deployment.Name)
		if s.State == lifecycle.Deleted {
			s = statusOf(b.deployment, pod, saying{})
		}
		s.UserType = lifecycle.UserType(b.deployment.Labels[lifecycle.LabelUserType])
	}
	code := http.StatusOK
	if b.created {
		code = http.StatusCreated
	}
	writeJSON(w, code, g.withStorage(r.Context(), g.describe(user, s)))
	return nil
}

// decodeRequest reads a body strictly. There need not be one.
func decodeRequest(body []byte) (*Request, error) {
	request := &Request{}
	if len(bytes.TrimSpace(body)) == 0 {
		return request, nil
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(request); err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("body: there is something after the JSON value")
	}
	if err := request.check(); err != nil {
		return nil, err
	}
	return request, nil
}

func (g *Gateway) get(w http.ResponseWriter, r *http.Request, user string) error {
	s, _, err := g.see(user)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, g.withStorage(r.Context(), s))
	return nil
}

// Values of Status.Storage.
const (
	storageNone      = "none"
	storageKept      = "kept"
	storageTemporary = "temporary"
)

// stays says why an agent is not deleted when it is idle; empty if it is, and for one that has gone.
func (g *Gateway) stays(s *Status) string {
	d, err := g.fleet.deployments.Get(s.Deployment)
	switch {
	case err != nil || d.DeletionTimestamp != nil:
		return ""
	case lifecycle.ProtectionOf(d, g.options.Now()) != "":
		return "its Deployment is protected: " + lifecycle.ProtectionOf(d, g.options.Now())
	case !g.options.Tiers.StopsWhenIdle(s.UserType):
		return fmt.Sprintf("agents of user type %s never stop", s.UserType)
	}
	return ""
}

// withStorage adds what there is of the agent's storage, whether the agent stays, and whom an agent that has gone
// worked for.
func (g *Gateway) withStorage(ctx context.Context, s Status) Status {
	s.Stays = g.stays(&s)
	claim, err := found(g.options.Client.CoreV1().PersistentVolumeClaims(g.options.Namespace).Get(ctx, claimName(s.Deployment), metav1.GetOptions{}))
	if err != nil {
		return s // not known
	}
	s.Storage = storageNone
	if claim == nil || claim.Annotations[lifecycle.AnnotationUser] != escapeUser(s.User) {
		return s
	}
	userType := lifecycle.UserType(claim.Labels[lifecycle.LabelUserType])
	s.Storage = storageKept
	goes := g.options.Tiers.DeletesStorage(userType) && lifecycle.ProtectionOf(claim, g.options.Now()) == ""
	if goes || claim.DeletionTimestamp != nil {
		s.Storage = storageTemporary
	}
	if s.State == lifecycle.Deleted {
		s.UserType = userType
		s.Reason = "there is no Deployment; a connection or PUT brings the agent back with its storage"
	}
	return s
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // who has hung up cannot be told
}

// recorder remembers the status code.
type recorder struct {
	http.ResponseWriter
	code int
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(code int) {
	if r.code == 0 || r.code < http.StatusOK {
		r.code = code
	}
	r.ResponseWriter.WriteHeader(code)
}

// Unwrap is for http.ResponseController, by which connections are flushed and taken over.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

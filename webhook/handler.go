package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/dexorder/agent-lifecycle/internal/connections"
)

const (
	// defaultTimeout is what the API server waits for a webhook that says nothing else, maxTimeout the most it waits.
	defaultTimeout = 10 * time.Second
	maxTimeout     = 30 * time.Second

	// maxMargin is kept back of the API server's patience, so that the answer still reaches it; a tenth of it if that
	// is less.
	maxMargin = 500 * time.Millisecond
)

// handler puts one of Admission's answers on HTTP. Its clients are strangers: it holds nothing for bytes that have not come,
// and bounds what a body may make it do before it does that.
type handler struct {
	answer func(ctx context.Context, dst, body []byte) ([]byte, error)
	// overload and tooMuch are the answers to a request that there is no room for, and to one that is more than is decoded.
	overload func() answer
	tooMuch  func(error) answer
	maxBody  int64
	bodies   *bodies
	limiter  *limiter
	metrics  *Metrics
}

// ServeHTTP answers an AdmissionReview with one. What is none gets an HTTP error, which the API server takes for a
// failed call: with failurePolicy Fail nothing passes by it.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.metrics.inFlight.Inc()
	defer h.metrics.inFlight.Dec()
	if code, err := h.precheck(r); err != nil {
		if code == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", http.MethodPost)
		}
		leaveUnread(w, r)
		h.refuse(w, code, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience(r))
	defer cancel()
	reader, err := newBodyReader(h.bodies, w, r, h.maxBody)
	defer reader.close()
	var body []byte
	if err == nil {
		body, err = reader.read(w)
	}
	if err != nil {
		leaveUnread(w, r)
		h.unread(w, body, err)
		return
	}
	load, err := weigh(body)
	if err != nil {
		h.decline(w, body, http.StatusRequestEntityTooLarge, h.tooMuch(err), err)
		return
	}
	connections.Answered(r.Context()) // It is no silent one: it must not be closed while the request is answered.
	n := shares(int64(len(body)), load.decoded())
	release, err := h.limiter.acquire(ctx, n)
	if err != nil {
		h.turnAway(w, body)
		return
	}
	// Nothing of the body is needed once it has been decoded, and nobody waits before.
	taken := &room{release: func() { release(); reader.close() }, small: n == 1}
	defer taken.leave()
	out := takeBuffer()
	answer, err := h.answer(withRoom(ctx, taken), out.AvailableBuffer(), body)
	if err != nil {
		h.refuse(w, http.StatusBadRequest, err)
		return
	}
	writeJSON(w, answer)
	connections.Answered(r.Context())
	// The answer may have outgrown out's memory: what is kept is what it grew into.
	putBuffer(bytes.NewBuffer(answer))
}

// leaveUnread ends a request whose body is not read to its end. By itself net/http would go on reading it, in order to use
// the connection again, and wait for a client that sends nothing. HTTP/2 has streams for that.
func leaveUnread(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor < 2 && r.ContentLength != 0 {
		w.Header().Set("Connection", "close")
		_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
	}
}

// precheck refuses what is not worth reading.
func (h *handler) precheck(r *http.Request) (code int, err error) {
	if r.Method != http.MethodPost {
		return http.StatusMethodNotAllowed, fmt.Errorf("method %s: only POST is understood", r.Method)
	}
	contentType := r.Header.Get("Content-Type")
	if mediaType, _, err := mime.ParseMediaType(contentType); err != nil || mediaType != "application/json" {
		return http.StatusUnsupportedMediaType, fmt.Errorf("content type %q: only application/json is understood",
			bounded(contentType, maxComplaint))
	}
	if r.ContentLength > h.maxBody {
		return http.StatusRequestEntityTooLarge, fmt.Errorf("body of %d bytes: at most %d are read", r.ContentLength, h.maxBody)
	}
	return 0, nil
}

// unread answers a request whose body was not read to its end: got is what has come of it.
func (h *handler) unread(w http.ResponseWriter, got []byte, err error) {
	switch tooLarge := new(http.MaxBytesError); {
	case errors.Is(err, errOverload), errors.Is(err, errSlow):
		h.turnAway(w, got)
	case errors.As(err, &tooLarge):
		h.refuse(w, http.StatusRequestEntityTooLarge, err)
	case errors.Is(err, errTimeout):
		h.refuse(w, http.StatusRequestTimeout, err)
	default:
		h.refuse(w, http.StatusBadRequest, err)
	}
}

// maxPeek bounds what is read of a request that is not decoded.
const maxPeek = 1 << 10

// turnAway answers for want of room, mostly by telling the API server's client to come back.
func (h *handler) turnAway(w http.ResponseWriter, got []byte) {
	w.Header().Set("Retry-After", strconv.Itoa(retryAfterSeconds))
	a := h.overload()
	h.decline(w, got, http.StatusTooManyRequests, a, errOverload)
}

// decline answers a request that is not decoded. The request's uid is needed for an answer, which the API server writes
// first; where it is not found there, HTTP says the same, though as a failed call.
func (h *handler) decline(w http.ResponseWriter, got []byte, code int, a answer, err error) {
	h.metrics.fault(a.reason)
	if uid := peekUID(bytes.NewReader(got[:min(len(got), maxPeek)])); uid != "" {
		if answer, err := appendAnswer(nil, uid, &a); err == nil {
			writeJSON(w, answer)
			return
		}
	}
	if code == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfterSeconds))
	}
	h.refuse(w, code, err)
}

func (h *handler) refuse(w http.ResponseWriter, code int, err error) {
	h.metrics.refused.WithLabelValues(strconv.Itoa(code)).Inc()
	http.Error(w, err.Error(), code)
}

func writeJSON(w http.ResponseWriter, body []byte) {
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // who has hung up cannot be told
}

// patience is how long an answer may take. The API server says how long it waits.
func patience(r *http.Request) time.Duration {
	timeout := defaultTimeout
	if q := r.URL.Query().Get("timeout"); q != "" {
		if d, err := time.ParseDuration(q); err == nil && d > 0 {
			timeout = min(d, maxTimeout)
		}
	}
	return timeout - min(timeout/10, maxMargin)
}

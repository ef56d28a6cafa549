package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"
)

const (
	// defaultTimeout is what the API server waits for a webhook that says nothing else, maxTimeout the most it waits.
	defaultTimeout = 10 * time.Second
	maxTimeout     = 30 * time.Second

	// maxMargin is kept back of the API server's patience, so that the answer still reaches it; a tenth of it if that
	// is less.
	maxMargin = 500 * time.Millisecond
)

// handler puts one of Admission's answers on HTTP.
type handler struct {
	answer func(ctx context.Context, dst, body []byte) ([]byte, error)
	// overload is the answer to a request that there is no room for.
	overload func() answer
	maxBody  int64
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
		h.refuse(w, code, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience(r))
	defer cancel()
	size := r.ContentLength
	if size < 0 {
		size = h.maxBody
	}
	release, err := h.limiter.acquire(ctx, size)
	if err != nil {
		h.turnAway(w, r)
		return
	}
	taken := &room{release: release, small: size < shareBytes}
	defer taken.leave()
	in, out := takeBuffer(), takeBuffer()
	defer putBuffer(in)
	if err := h.read(in, w, r); err != nil {
		code := http.StatusBadRequest
		if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			code = http.StatusRequestEntityTooLarge
		}
		h.refuse(w, code, err)
		return
	}
	answer, err := h.answer(withRoom(ctx, taken), out.AvailableBuffer(), in.Bytes())
	if err != nil {
		h.refuse(w, http.StatusBadRequest, err)
		return
	}
	writeJSON(w, answer)
	// The answer may have outgrown out's memory: what is kept is what it grew into.
	putBuffer(bytes.NewBuffer(answer))
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

func (h *handler) read(in *bytes.Buffer, w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength > 0 {
		in.Grow(int(r.ContentLength) + bytes.MinRead) // ReadFrom wants that much more room to notice the end
	}
	_, err := in.ReadFrom(http.MaxBytesReader(w, r.Body, h.maxBody))
	return err
}

// maxPeek bounds what is read of a request that there is no room for.
const maxPeek = 1 << 10

// turnAway answers for want of room, mostly by telling the API server's client to come back. The request's uid is needed
// for that, which the API server writes first; where it is not found there, HTTP says the same, though as a failed call.
func (h *handler) turnAway(w http.ResponseWriter, r *http.Request) {
	h.metrics.fault(faultOverload)
	if uid := peekUID(io.LimitReader(r.Body, maxPeek)); uid != "" {
		a := h.overload()
		if answer, err := appendAnswer(nil, uid, &a); err == nil {
			writeJSON(w, answer)
			return
		}
	}
	w.Header().Set("Retry-After", strconv.Itoa(retryAfterSeconds))
	h.refuse(w, http.StatusTooManyRequests, errOverload)
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

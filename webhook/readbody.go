package webhook

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

const (
	// bodyStall is how long a body may pause, bodyTimeout how long it may take in all. The API server has the body at hand
	// when it connects.
	bodyStall   = time.Second
	bodyTimeout = 5 * time.Second

	// renewDeadline is how much of bodyStall may pass before the deadline is put off: not every read has to.
	renewDeadline = bodyStall / 4

	// firstChunk is what a body is read into before more than that has come, in bytes. A connection that sends little holds
	// no more.
	firstChunk = 4 << 10
)

// errTimeout says that a body did not come in time.
var errTimeout = errors.New("the body did not come in time: at most a second may pass without a byte, and five in all")

var chunks = sync.Pool{New: func() any { return new([firstChunk]byte) }}

// bodyReader reads one request's body, under a deadline and within the room that h takes for it.
type bodyReader struct {
	request *http.Request
	control *http.ResponseController
	held    *heldBody
	maxBody int64

	chunk  *[firstChunk]byte
	buffer *bytes.Buffer
	start  time.Time
	set    time.Time
}

// newBodyReader takes room for a body. close must be called in any case.
func newBodyReader(bodies *bodies, w http.ResponseWriter, r *http.Request, maxBody int64) (*bodyReader, error) {
	b := &bodyReader{request: r, control: http.NewResponseController(w), maxBody: maxBody}
	var err error
	b.held, err = bodies.begin(b.expire)
	return b, err
}

// expire ends reading, now and for all time. What cannot have a deadline is a test's recorder, which never waits.
func (b *bodyReader) expire() { _ = b.control.SetReadDeadline(time.Unix(1, 0)) }

// close gives room and memory back. It may be called more than once.
func (b *bodyReader) close() {
	b.held.release()
	if b.chunk != nil {
		chunks.Put(b.chunk)
	}
	if b.buffer != nil {
		putBuffer(b.buffer)
	}
	b.chunk, b.buffer = nil, nil
}

// read returns the whole body, which is valid until close. What has come is returned with an error too.
func (b *bodyReader) read(w http.ResponseWriter) ([]byte, error) {
	from := http.MaxBytesReader(w, b.request.Body, b.maxBody)
	if err := b.held.grow(firstChunk); err != nil {
		return nil, err
	}
	b.start = time.Now()
	b.chunk = chunks.Get().(*[firstChunk]byte)
	n, err := b.fill(b.chunk[:], from)
	body := b.chunk[:n]
	if err == nil {
		body, err = b.readOn(from)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return body, b.cause(err)
	}
	if !b.held.complete() {
		return body, errSlow
	}
	// The connection is watched for its end from here on: an old deadline would look like one.
	_ = b.control.SetReadDeadline(time.Time{})
	return body, nil
}

// readOn reads what goes beyond the first chunk into a buffer that grows as bytes come.
func (b *bodyReader) readOn(from io.Reader) ([]byte, error) {
	body := b.chunk[:]
	b.buffer = takeBuffer()
	err := b.held.grow(b.buffer.Cap())
	if err == nil && b.buffer.Cap() > len(body) {
		body = append(b.buffer.AvailableBuffer(), body...)
	}
	for err == nil {
		if len(body) == cap(body) {
			grown := bytes.NewBuffer(make([]byte, 0, b.capacity(len(body))))
			if err = b.held.grow(grown.Cap() - b.buffer.Cap()); err != nil {
				break
			}
			body = append(grown.AvailableBuffer(), body...)
			b.buffer = grown
		}
		var n int
		n, err = b.fill(body[len(body):cap(body)], from)
		body = body[:len(body)+n]
	}
	return body, err
}

// capacity is what a buffer of so many bytes grows to: twice that, but no more than what was announced and what notices the
// end.
func (b *bodyReader) capacity(size int) int {
	most := b.maxBody
	if b.request.ContentLength > int64(size) {
		most = b.request.ContentLength
	}
	return int(min(int64(2*size), most+1))
}

// fill reads until p is full or an error ends it, and puts the deadline off as long as bytes come.
func (b *bodyReader) fill(p []byte, from io.Reader) (n int, err error) {
	for n < len(p) && err == nil {
		if now := time.Now(); now.Sub(b.set) >= renewDeadline {
			_ = b.control.SetReadDeadline(readDeadline(b.start, now))
			b.set = now
			if b.held.givenUp() { // perhaps just before the deadline was put off
				b.expire()
				return n, errSlow
			}
		}
		var more int
		more, err = from.Read(p[n:])
		n += more
	}
	return n, err
}

// readDeadline is until when the next byte has to come.
func readDeadline(start, now time.Time) time.Time {
	stall, end := now.Add(bodyStall), start.Add(bodyTimeout)
	if stall.Before(end) {
		return stall
	}
	return end
}

// cause names what ended the read. After an eviction the read fails by its deadline.
func (b *bodyReader) cause(err error) error {
	switch {
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case b.held.givenUp():
		return errSlow
	}
	return errTimeout
}

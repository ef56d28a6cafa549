package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxAgentHeader bounds the headers of an agent's answer, in bytes. Package http would keep 10 MB of every answer: 34 requests
	// to an agent that sends so much and then stalls would take all the memory that the gateway may use.
	maxAgentHeader = 32 << 10

	// agentReadBuffer and agentWriteBuffer are those of a connection to an agent, in bytes. The trailers of an answer must fit into
	// the first one.
	agentReadBuffer, agentWriteBuffer = 4 << 10, 4 << 10

	// informationalBurst and informationalEvery bound the informational answers (1xx) to one request. Package http leaves their number to
	// the one who passes them on, as httputil.ReverseProxy does without a bound.
	informationalBurst, informationalEvery = 20, time.Second
)

// errInformational ends a request that the agent answers with informational answers only.
var errInformational = errors.New("the agent sends too many informational answers (1xx)")

// transport says in what one way of speaking to agents differs from another.
type transport struct {
	// dial connects; nil is a net.Dialer.
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	// headerTimeout is how long an agent may take from the end of a request to the end of its answer's headers; 0 is no bound.
	headerTimeout time.Duration

	// small is for connections on which little is said, of which there are many.
	small bool
}

// open is the one place where the gateway makes an http.Transport: whatever an agent answers is bounded here. A connection is for one
// request, no proxy of the environment is asked, and nothing is decompressed.
func (t transport) open() *http.Transport {
	opened := &http.Transport{
		DialContext: t.dial, DisableKeepAlives: true, DisableCompression: true,
		MaxResponseHeaderBytes: maxAgentHeader, ResponseHeaderTimeout: t.headerTimeout,
		ReadBufferSize: agentReadBuffer, WriteBufferSize: agentWriteBuffer,
	}
	if t.small {
		opened.ReadBufferSize, opened.WriteBufferSize = 1<<10, 512
	}
	return opened
}

// client returns a client of lifecycle managers. timeout bounds a whole answer; 0 is no bound. It follows no redirect: an agent must not
// send the gateway elsewhere.
func (t transport) client(timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout: timeout, Transport: t.open(),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// limitInformational returns a context that ends a request whose answer is preceded by too many informational ones. An agent that says
// once in a while that it still works is not cut off.
func limitInformational(ctx context.Context, now func() time.Time) context.Context {
	bucket := rate.NewLimiter(rate.Every(informationalEvery), informationalBurst)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
		if !bucket.AllowN(now(), 1) {
			return fmt.Errorf("%w: more than %d, and one each %s, the last one %d", errInformational, informationalBurst, informationalEvery, code)
		}
		return nil
	}})
}

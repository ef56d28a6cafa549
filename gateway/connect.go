package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"time"
)

// errSent is a request that may have reached the agent.
var errSent = errors.New("the connection to the agent failed; whether it has seen the request is not known, and it is not sent again")

// connect delivers a request to the user's agent, on a connection of its own, once. path is what follows the prefix, escaped.
func (g *Gateway) connect(w http.ResponseWriter, r *http.Request, user, path string) {
	unescaped, err := url.PathUnescape(path)
	if err != nil {
		g.fail(w, r, fmt.Errorf("%w: path: %w", errRequest, err))
		return
	}
	if isGRPC(r) {
		g.fail(w, r, errProtocol)
		return
	}
	if err := checkLength(r, g.options.Limits.Body); err != nil {
		g.fail(w, r, err)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, g.options.Limits.Body)
	conn, pod, err := g.dial(r.Context(), user)
	if err != nil {
		g.fail(w, r, err)
		return
	}
	defer conn.Close()
	g.delivering.Add(1)
	defer g.delivering.Add(-1)
	exchange := g.uses.begin(pod)
	defer exchange.end()
	proxy := &httputil.ReverseProxy{
		Transport:      once(usedConn{conn, exchange.use}, g.options.Limits.HeaderTimeout),
		FlushInterval:  -1,
		ModifyResponse: exchange.modify,
		// How an agent breaks off an answer is its own affair, and not for the log, which is JSON.
		ErrorLog: slog.NewLogLogger(g.options.Logger.Handler(), slog.LevelDebug),
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL = &url.URL{
				Scheme: "http", Host: fmt.Sprintf("%s.%s.svc:%d", Name(user), g.options.Namespace, g.servicePort),
				Path: "/" + unescaped, RawPath: "/" + path, RawQuery: p.In.URL.RawQuery,
			}
			p.Out.Host = ""
			p.SetXForwarded()
			p.Out.Header.Del("Authorization") // it is for the gateway alone
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if large := tooLarge(err); large != nil {
				g.fail(w, r, large)
				return
			}
			g.options.Logger.Info("A request failed at the agent", "user", user, "error", err)
			g.fail(w, r, errSent)
		},
	}
	ctx, cancel := context.WithCancel(limitInformational(r.Context(), g.options.Now))
	defer cancel()
	defer context.AfterFunc(g.connections, cancel)()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			if info.Err == nil {
				exchange.requestSent()
			}
		},
	})
	proxy.ServeHTTP(w, r.WithContext(ctx))
}

// once is a transport for one request. The transport of package http sends again what it takes for idempotent, where a
// connection that was in use before turns out to be dead; one that is new is never in doubt.
func once(conn net.Conn, headerTimeout time.Duration) *http.Transport {
	var dialled atomic.Bool
	return transport{
		headerTimeout: headerTimeout,
		dial: func(context.Context, string, string) (net.Conn, error) {
			if dialled.Swap(true) {
				return nil, errSent
			}
			return conn, nil
		},
	}.open()
}

package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
)

// manager passes requests below /manager/ on to the lifecycle manager's socket.
func manager(w http.ResponseWriter, r *http.Request) {
	proxy := httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = "http", "lifecycle"
			p.Out.URL.Path = strings.TrimPrefix(p.In.URL.Path, "/manager")
		},
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", runDir+"/lifecycle.sock")
		}},
		FlushInterval: -1,
	}
	proxy.ServeHTTP(w, r)
}

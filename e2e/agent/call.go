package main

import (
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
)

// tokenFile is where a caller of the gateway finds its token.
const tokenFile = "/var/run/secrets/gateway/token"

// call makes the program somebody who calls others: it sends the request on to ?url, and the answer back. It shows its own token
// unless it is told what to show in the header Show, which may be empty.
func call(w http.ResponseWriter, r *http.Request) {
	target, err := url.Parse(r.FormValue("url"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	show := "Bearer " + ownToken()
	if shown, told := r.Header["Show"]; told {
		show = shown[0]
	}
	proxy := httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL, p.Out.Host = target, ""
			p.Out.Header.Del("Show")
			p.Out.Header.Del("Authorization")
			if show != "" {
				p.Out.Header.Set("Authorization", show)
			}
		},
		// What answers without it is on the way to here.
		ModifyResponse: func(response *http.Response) error { response.Header.Set("Called", "true"); return nil },
		FlushInterval:  -1,
	}
	proxy.ServeHTTP(w, r)
}

func ownToken() string {
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		return ""
	}
	return string(token)
}

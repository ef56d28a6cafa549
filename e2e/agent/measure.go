package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"
)

// measured is one request: its status code, when it began in Unix nanoseconds, and how many it took until the answer's end.
type measured struct {
	Code        int
	Began, Took int64
}

// measure gets ?url, ?n times one after another, as a caller of the gateway, and answers with how long each took. With ?fresh=true each
// has a connection of its own.
func measure(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.Atoi(r.FormValue("n"))
	caller := &http.Client{Transport: &http.Transport{DisableKeepAlives: r.FormValue("fresh") == "true"}, Timeout: 2 * time.Minute}
	defer caller.CloseIdleConnections()
	all := make([]measured, 0, n)
	for range n {
		request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, r.FormValue("url"), nil)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		request.Header.Set("Authorization", "Bearer "+ownToken())
		began := time.Now()
		response, err := caller.Do(request)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		_, err = io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		all = append(all, measured{response.StatusCode, began.UnixNano(), time.Since(began).Nanoseconds()})
	}
	_ = json.NewEncoder(w).Encode(all)
}

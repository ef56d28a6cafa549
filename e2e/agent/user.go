package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"sync"
)

// seen counts what was delivered, by the request's ?id.
type seen struct {
	mu    sync.Mutex
	count map[string]int
}

// echo answers with the Pod and what was sent, and counts it.
func (s *seen) echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return // whoever hung up hears nothing
	}
	s.mu.Lock()
	s.count[r.FormValue("id")]++
	s.mu.Unlock()
	pod, _ := os.Hostname()
	_ = json.NewEncoder(w).Encode(map[string]string{"pod": pod, "method": r.Method, "id": r.FormValue("id"), "body": string(body)})
}

// list says what was delivered since this process started.
func (s *seen) list(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = json.NewEncoder(w).Encode(s.count)
}

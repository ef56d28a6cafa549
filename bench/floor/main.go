// Command floor is the least that a pair of admission webhooks can be: /mutate answers every request with the same
// seven operations, /validate allows. What a real server takes beyond it is the price of its work.
package main

import (
	_ "embed"
	"encoding/json"
	"flag"
	"io"
	"log"
	"net/http"
	"time"
)

// patch does to the benchmark's Deployment what inject does to it, as far as seven operations go.
//
//go:embed patch.json
var patch []byte

// maxBody is generous: this server is on loopback.
const maxBody = 8 << 20

type review struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Request    *request  `json:"request,omitempty"`
	Response   *response `json:"response,omitempty"`
}

// request keeps nothing but what an answer takes; the object is skipped.
type request struct {
	UID string `json:"uid"`
}

type response struct {
	UID       string `json:"uid"`
	Allowed   bool   `json:"allowed"`
	Patch     []byte `json:"patch,omitempty"`
	PatchType string `json:"patchType,omitempty"`
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8443", "address to serve on")
	cert := flag.String("tls-cert", "", "certificate file")
	key := flag.String("tls-key", "", "key file")
	flag.Parse()

	mux := http.NewServeMux()
	mux.Handle("/mutate", answer(response{Allowed: true, Patch: patch, PatchType: "JSONPatch"}))
	mux.Handle("/validate", answer(response{Allowed: true}))
	server := &http.Server{Addr: *listen, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	log.Fatal(server.ListenAndServeTLS(*cert, *key))
}

func answer(with response) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		var in review
		if err := json.Unmarshal(body, &in); err != nil || in.Request == nil {
			http.Error(w, "no AdmissionReview", http.StatusBadRequest)
			return
		}
		out := with
		out.UID = in.Request.UID
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(review{APIVersion: in.APIVersion, Kind: in.Kind, Response: &out}); err != nil {
			log.Print(err)
		}
	})
}

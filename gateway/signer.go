package gateway

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/activity"
)

// maxNonce bounds what a lifecycle manager can make the gateway remember, in bytes.
const maxNonce = 64

// send sends a request to the lifecycle manager of a Pod, signed if there are keys. A manager that refuses a signature
// for the want of its nonce says it, and is asked once more. One without the gateway's key ignores the signature.
func (g *Gateway) send(client *http.Client, request *http.Request, pod *corev1.Pod, body []byte) (*http.Response, error) {
	signer := g.options.Signer
	if signer == nil || signer.Keys() == 0 {
		return client.Do(request)
	}
	known := g.nonces.of(pod.UID)
	response, err := client.Do(signed(signer, request, pod, body, known))
	if err != nil || response.StatusCode != http.StatusUnauthorized {
		return response, err
	}
	nonce := response.Header.Get(activity.NonceHeader)
	if nonce == known || !acceptableNonce(nonce) {
		return response, nil
	}
	response.Body.Close()
	g.nonces.learn(pod.UID, nonce)
	return client.Do(signed(signer, request, pod, body, nonce))
}

// signed returns a copy of the request with signatures for a Pod.
func signed(signer *activity.Signer, request *http.Request, pod *corev1.Pod, body []byte, nonce string) *http.Request {
	request = request.Clone(request.Context())
	if body != nil {
		request.Body = io.NopCloser(bytes.NewReader(body))
	}
	signer.Sign(request.Header, &activity.Request{
		Method: request.Method, Path: request.URL.RequestURI(), Body: body, Audience: string(pod.UID), Nonce: nonce,
	})
	return request
}

// acceptableNonce says whether a nonce, which an agent can choose as it likes, fits into a header.
func acceptableNonce(nonce string) bool {
	odd := func(r rune) bool { return r <= ' ' || r > unicode.MaxASCII || r == 0x7f }
	return nonce != "" && len(nonce) <= maxNonce && !strings.ContainsFunc(nonce, odd)
}

// nonces are those of lifecycle managers, by Pod.
type nonces struct {
	mu sync.Mutex
	by map[types.UID]string
}

func newNonces() *nonces { return &nonces{by: map[types.UID]string{}} }

func (n *nonces) of(pod types.UID) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.by[pod]
}

func (n *nonces) learn(pod types.UID, nonce string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.by) >= maxBuckets {
		clear(n.by) // managers say theirs again
	}
	n.by[pod] = nonce
}

func (n *nonces) forget(pod types.UID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.by, pod)
}

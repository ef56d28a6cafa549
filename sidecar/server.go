package sidecar

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// Server is how the API server is reached. Files are read anew for every request: tokens are renewed, and so are CAs.
type Server struct {
	// URL, such as https://10.96.0.1:443.
	URL string

	// CAFile and TokenFile, or what they would hold.
	CAFile, TokenFile string
	CA, Token         []byte

	// Certificate is a client certificate, for use outside a Pod.
	Certificate *tls.Certificate
}

// InCluster is the API server as a Pod sees it. The error says what is missing.
func InCluster(getenv func(string) string) (Server, error) {
	host, port := getenv("KUBERNETES_SERVICE_HOST"), getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return Server{}, errors.New("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set, as they are in a Pod; " +
			"outside of one use --kubeconfig")
	}
	return Server{
		URL:       "https://" + net.JoinHostPort(host, port),
		CAFile:    filepath.Join(lifecycle.TokenDir, "ca.crt"),
		TokenFile: filepath.Join(lifecycle.TokenDir, "token"),
	}, nil
}

const (
	// requestTimeout is longer than the API server takes for admission at most, 10 s, of which the webhook holds 2.
	requestTimeout = 15 * time.Second

	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 64 << 10
)

// reply is what a request for deletion led to.
type reply struct {
	// code is HTTP's; 0 if there was no answer.
	code int

	// message is the API server's, or what went wrong on the way.
	message string

	// retryAfter is what the server asked for; 0 if nothing.
	retryAfter time.Duration

	// judged says that the webhook's policy refused, and not the API server by itself.
	judged bool
}

// status is what is read of a metav1.Status.
type status struct {
	Message string `json:"message"`
	Details struct {
		Causes []struct {
			Type string `json:"reason"`
		} `json:"causes"`
	} `json:"details"`
}

// deleteDeployment asks once. Foreground: the Deployment, and with it its name, stays until its Pods and storage have gone,
// so that a quick return does not meet what is dying.
func (s *Server) deleteDeployment(ctx context.Context, namespace, name string, dryRun bool) reply {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	client, err := s.client()
	if err != nil {
		return reply{message: err.Error()}
	}
	defer client.CloseIdleConnections()
	request, err := s.request(ctx, namespace, name, dryRun)
	if err != nil {
		return reply{message: err.Error()}
	}
	response, err := client.Do(request)
	if err != nil {
		return reply{message: err.Error()}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	r := reply{code: response.StatusCode, message: response.Status}
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && seconds > 0 {
		r.retryAfter = min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	var said status
	if err == nil && json.Unmarshal(body, &said) == nil && said.Message != "" {
		r.message = said.Message
		for _, c := range said.Details.Causes {
			r.judged = r.judged || c.Type == lifecycle.CauseJudged
		}
	}
	return r
}

func (s *Server) request(ctx context.Context, namespace, name string, dryRun bool) (*http.Request, error) {
	options := `{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Foreground"`
	if dryRun {
		options += `,"dryRun":["All"]`
	}
	target := strings.TrimSuffix(s.URL, "/") + "/apis/apps/v1/namespaces/" + url.PathEscape(namespace) + "/deployments/" + url.PathEscape(name)
	request, err := http.NewRequestWithContext(ctx, http.MethodDelete, target, bytes.NewReader([]byte(options+"}")))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "lifecycle-sidecar")
	token := s.Token
	if s.TokenFile != "" {
		if token, err = os.ReadFile(s.TokenFile); err != nil {
			return nil, fmt.Errorf("token: %w", err)
		}
	}
	if len(token) > 0 {
		request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	return request, nil
}

func (s *Server) client() (*http.Client, error) {
	ca := s.CA
	if s.CAFile != "" {
		var err error
		if ca, err = os.ReadFile(s.CAFile); err != nil {
			return nil, fmt.Errorf("CA: %w", err)
		}
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(ca) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errors.New("CA: there is no certificate in it")
		}
	}
	if s.Certificate != nil {
		config.Certificates = []tls.Certificate{*s.Certificate}
	}
	return &http.Client{
		Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, Proxy: nil},
		// The API server does not redirect; whoever does may not have the token.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

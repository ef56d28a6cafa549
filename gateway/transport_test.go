package gateway

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// An agent that answers with headers without end, and stalls, costs the gateway 32 KiB of each and not 10 MB.
func TestAgentWithEndlessHeaders(t *testing.T) {
	const requests, most = 24, 512 << 10
	header := append([]byte("X: "), bytes.Repeat([]byte("x"), 1<<20)...)
	header = append(header, "\r\n"...)
	address := hostileAgent(t, func(conn net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
		for range 9 {
			if _, err := conn.Write(header); err != nil {
				return // the gateway has had enough
			}
		}
		_, _ = conn.Read(make([]byte, 1)) // until the gateway hangs up
	})
	g, _ := newGateway(t, address, nil, readyAgent("mallory", lifecycle.Anonymous)...)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	codes := make(chan int, requests)
	var group sync.WaitGroup
	for range requests {
		group.Go(func() { codes <- call(ctx, g, http.MethodGet, "mallory", "/connect/x").Code })
	}
	group.Wait()
	runtime.ReadMemStats(&after)
	close(codes)
	for code := range codes {
		if code != http.StatusBadGateway {
			t.Errorf("answered with %d, want 502", code)
		}
	}
	// What was allocated in all, which no garbage collection can hide.
	if each := (after.TotalAlloc - before.TotalAlloc) / requests; each > most {
		t.Errorf("a request took %d KiB, want at most %d", each>>10, most>>10)
	}
}

// The next transport that somebody makes would have package http's bounds, which are none.
func TestOneTransport(t *testing.T) {
	const one = "transport.go"
	forbidden := []string{
		"http.Transport", "http.DefaultTransport", "http.DefaultClient", "http.Client", "http.Get", "http.Head", "http.Post", "http.PostForm",
		"http.NewClientConn", "http.NewFileTransport",
	}
	seen := map[string]int{}
	for _, folder := range []string{".", "../cmd/agent-gateway"} {
		files, err := filepath.Glob(filepath.Join(folder, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			positions := token.NewFileSet()
			file, err := parser.ParseFile(positions, name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, spec := range file.Imports {
				if spec.Name != nil && strings.HasPrefix(spec.Path.Value, `"net/http`) {
					t.Errorf("%s: %s has another name here", positions.Position(spec.Pos()), spec.Path.Value)
				}
			}
			pointers := map[ast.Node]bool{}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.StarExpr: // the type of a pointer makes none
					pointers[n.X] = true
				case *ast.SelectorExpr:
					used := fmt.Sprintf("%s.%s", n.X, n.Sel)
					if !slices.Contains(forbidden, used) || pointers[n] {
						return true
					}
					seen[used]++
					if name != one {
						t.Errorf("%s: %s; see transport.go for the one that is bounded", positions.Position(n.Pos()), used)
					}
				case *ast.CompositeLit:
					if selector, ok := n.Type.(*ast.SelectorExpr); ok && selector.Sel.Name == "ReverseProxy" && !sets(n, "Transport") {
						t.Errorf("%s: a ReverseProxy with the default transport", positions.Position(n.Pos()))
					}
				}
				return true
			})
		}
	}
	if seen["http.Transport"] != 1 || seen["http.Client"] != 1 {
		t.Errorf("%s makes %v, want one http.Transport and one http.Client", one, seen)
	}
}

// sets says whether a literal sets a field.
func sets(literal *ast.CompositeLit, field string) bool {
	return slices.ContainsFunc(literal.Elts, func(e ast.Expr) bool {
		pair, ok := e.(*ast.KeyValueExpr)
		return ok && fmt.Sprint(pair.Key) == field
	})
}

// Informational answers are passed on, and their number is not for the agent alone to say.
func TestInformationalAnswers(t *testing.T) {
	for _, tt := range []struct {
		answers int
		code    int
	}{
		{informationalBurst, http.StatusOK}, {informationalBurst * 100, http.StatusBadGateway},
	} {
		address := hostileAgent(t, func(conn net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
				return
			}
			for range tt.answers {
				if _, err := io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"); err != nil {
					return
				}
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		})
		now := newClock()
		g, _ := newGateway(t, address, func(o *Options) { o.Now = now.Now }, readyAgent("mallory", lifecycle.Anonymous)...)
		// A recorder takes an informational answer for the last one, so a real server it is.
		response, err := http.Get(serveGateway(t, g) + pathPrefix + "mallory/connect/x")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != tt.code {
			t.Errorf("after %d informational answers: %s, want %d", tt.answers, response.Status, tt.code)
		}
	}
}

// Trailers are bounded by the read buffer: an agent that sends more of them ends its answer.
func TestEndlessTrailers(t *testing.T) {
	address := hostileAgent(t, func(conn net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\nok\r\n0\r\nX: ")
		for range 9 {
			if _, err := conn.Write(bytes.Repeat([]byte("x"), 1<<20)); err != nil {
				return
			}
		}
		_, _ = io.WriteString(conn, "\r\n\r\n")
	})
	g, _ := newGateway(t, address, nil, readyAgent("mallory", lifecycle.Anonymous)...)
	caller := &http.Client{Transport: &http.Transport{ReadBufferSize: 16 << 20}} // which takes what a gateway lets through
	defer caller.CloseIdleConnections()
	response, err := caller.Get(serveGateway(t, g) + pathPrefix + "mallory/connect/x")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err == nil {
		t.Errorf("answered with %q and trailers of %d bytes", body, len(response.Trailer.Get("X")))
	}
}

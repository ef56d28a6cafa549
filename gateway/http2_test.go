package gateway

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// Who speaks HTTP/2 without having asked is told why that does not work, in HTTP/2.
func TestHTTP2IsRefusedWithAReason(t *testing.T) {
	t.Parallel()
	g, _ := newGateway(t, "127.0.0.1:1", nil, readyAgent("alice", lifecycle.Free)...)
	url := serveGateway(t, g)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: protocols}, Timeout: 30 * time.Second}
	// The client of net/http has the reason in its error only if it hears it after it has sent the request.
	response, err := client.Post(url+pathPrefix+"alice/connect/pkg.Service/Method", "application/grpc", strings.NewReader("x"))
	if err == nil {
		response.Body.Close()
		t.Fatalf("answered with %s", response.Status)
	}
	// Clients of gRPC show what is in the frame.
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatalf("the connection ended without a reason: %v", err)
		}
		if goaway, ok := frame.(*http2.GoAwayFrame); ok {
			if got := string(goaway.DebugData()); got != errProtocol.Error() || goaway.ErrCode != http2.ErrCodeHTTP11Required {
				t.Errorf("the reason is %s %q", goaway.ErrCode, got)
			}
			break
		}
	}
	waitFor(t, "a place is not given back", func() bool { return len(g.farewells) == 0 })
}

// A gRPC call over HTTP/1.1 cannot work, since its status is in trailers that an HTTP/1.1 client does not look at. gRPC-Web can.
func TestGRPCIsRefused(t *testing.T) {
	t.Parallel()
	g, _ := newGateway(t, hostileAgent(t, useAgent), nil, readyAgent("alice", lifecycle.Free)...)
	for contentType, code := range map[string]int{
		"application/grpc": 415, "application/grpc+proto": 415, "Application/GRPC; charset=x": 415,
		"application/grpc-web+proto": 200, "application/connect+json": 200, "": 200,
	} {
		w := call(t.Context(), g, http.MethodPost, "alice", "/connect/x", "Content-Type", contentType)
		if w.Code != code || code == 415 && !strings.Contains(w.Body.String(), `"protocol"`) {
			t.Errorf("%q: %d %s, want %d", contentType, w.Code, w.Body, code)
		}
	}
}

func TestTemplateOfHTTP2(t *testing.T) {
	good := exampleTemplate(t)
	if got := good.Warnings(); len(got) > 0 {
		t.Errorf("the template as shipped: %q", got)
	}
	template, err := ParseTemplate([]byte(strings.Replace(good.text, "    targetPort: mcp", "    targetPort: mcp\n    appProtocol: kubernetes.io/h2c", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(template.Warnings(), "\n"); !strings.Contains(got, `appProtocol is "kubernetes.io/h2c": the gateway speaks HTTP/1.1`) {
		t.Errorf("%q", got)
	}
}

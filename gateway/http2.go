package gateway

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/http2"
)

const (
	// maxFarewells is how many connections at once are told that they should speak HTTP/1.1. farewellTimeout and
	// farewellBytes bound what each of them may send meanwhile: were the connection closed with bytes unread, the client
	// would see a reset and not the reason.
	maxFarewells    = 64
	farewellTimeout = 500 * time.Millisecond
	farewellBytes   = 64 << 10
)

// errProtocol is a request in a protocol that the gateway does not speak.
var errProtocol = errors.New("the gateway speaks HTTP/1.1 to callers and agents, so gRPC over HTTP/2 does not pass; " +
	"gRPC-Web, Connect, WebSockets and streamed answers do")

// isGRPC says whether a request is a gRPC call, which needs HTTP/2 and its trailers from end to end. gRPC-Web does not.
func isGRPC(r *http.Request) bool {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && (mediaType == "application/grpc" || strings.HasPrefix(mediaType, "application/grpc+"))
}

// startsHTTP2 says whether a request is the preface of a connection whose client speaks HTTP/2 without having asked.
func startsHTTP2(r *http.Request) bool { return r.ProtoMajor == 2 && r.Method == "PRI" }

// refuseHTTP2 tells such a client in its own protocol why the connection ends. Clients show the text of a GOAWAY frame, and some try
// HTTP/1.1 for its code.
func (g *Gateway) refuseHTTP2(w http.ResponseWriter) {
	release, ok := take(g.farewells)
	if !ok {
		w.Header().Set("Connection", "close")
		problem{Status: http.StatusHTTPVersionNotSupported, Code: "protocol", Detail: errProtocol.Error()}.write(w)
		return
	}
	defer release()
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return // there is nobody to tell
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(farewellTimeout)) // a connection that has none is closed
	framer := http2.NewFramer(conn, nil)
	if framer.WriteSettings() != nil || framer.WriteGoAway(0, http2.ErrCodeHTTP11Required, []byte(errProtocol.Error())) != nil {
		return
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(conn, farewellBytes)) // until the client has read it
	}
}

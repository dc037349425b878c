package listen_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/rs/zerolog"

	"relay/ingest/listen"
	"relay/internal/testkit"
)

// The user of a Unix peer is known, and that of a TCP peer is not.
func TestPeer(t *testing.T) {
	unix, err := listen.Unix(t.Context(), filepath.Join(testkit.Dir(t), "s.sock"), 0o600)
	testkit.Must(t, err)
	tcp, err := listen.TCP(t.Context(), "127.0.0.1:0")
	testkit.Must(t, err)
	for _, c := range []struct {
		l    net.Listener
		want string
	}{{unix, fmt.Sprint(os.Getuid(), runtime.GOOS == "linux")}, {tcp, "0 false"}} {
		s := listen.NewServer(listen.ServerOptions{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, fmt.Sprintln(listen.Peer(r.Context()))) }),
			Log:     zerolog.Nop(),
		})
		done := make(chan error, 1)
		go func() { done <- s.Serve(c.l) }()
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, c.l.Addr().Network(), c.l.Addr().String())
		}}}
		resp, err := client.Get("http://localhost/")
		testkit.Must(t, err)
		body, err := io.ReadAll(resp.Body)
		testkit.Must(t, err)
		testkit.Must(t, resp.Body.Close())
		if string(body) != c.want+"\n" {
			t.Errorf("%s: peer %q, want %q", c.l.Addr().Network(), body, c.want)
		}
		testkit.Must(t, s.Close())
		<-done
	}
}

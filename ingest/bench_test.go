package ingest

import (
	"bytes"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"relay/ingest/listen"
)

// BenchmarkServer is an event of 1 KiB from the app's write to the answer it
// reads, but for the outbox: 16 connections on a Unix socket, one request at a
// time on each. "net/http" is the same behind that library, for scale.
func BenchmarkServer(b *testing.B) {
	data := `{"text":"` + strings.Repeat("x", 1000) + `"}`
	requests := map[string][]byte{
		"typed":  []byte(withLength(data)),
		"single": []byte(strings.Replace(withLength(`{"type":"invoice.paid","data":`+data+`}`), "/a ", " ", 1)),
	}
	for _, name := range []string{"typed", "single"} {
		for _, library := range []string{"ours", "net/http"} {
			b.Run(name+"/"+library, func(b *testing.B) {
				in := New(Options{Outbox: nowhere{}, Route: to("billing")})
				var s server = NewServer(ServerOptions{Ingest: in, Guard: listen.Guard{AnyHost: true}})
				if library == "net/http" {
					s = listen.NewServer(listen.ServerOptions{Handler: listen.Guard{AnyHost: true}.Wrap(reference{in})})
				}
				l, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
				if err != nil {
					b.Fatal(err)
				}
				go func() { _ = s.Serve(l) }()
				defer s.Close()
				b.ReportAllocs()
				before := cpu(b)
				share(b, l.Addr().String(), requests[name])
				b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

// share sends b.N requests over 16 connections.
func share(b *testing.B, path string, request []byte) {
	var wg sync.WaitGroup
	for i := range 16 {
		conn, err := net.Dial("unix", path)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		wg.Go(func() {
			answer := make([]byte, 4096)
			for range (b.N + i) / 16 {
				if _, err := conn.Write(request); err != nil {
					b.Error(err)
					return
				}
				n, err := io.ReadAtLeast(conn, answer, len("HTTP/1.1 202"))
				if err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 202")) {
					b.Errorf("got %q %v", answer[:n], err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// cpu is what the process has used of the processors, client and all.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

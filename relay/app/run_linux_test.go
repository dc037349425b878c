package app

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Fault F7, as the process sees it: when the outbox cannot be written any more,
// Run ends at once with the reason, though a receiver hangs, since a start on the
// disk's truth is the only repair. The grace is for attempts that can be recorded.
func TestBrokenOutboxEndsRun(t *testing.T) {
	arrived, block := make(chan struct{}, 1), make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-block
	}))
	defer receiver.Close()
	defer close(block)
	p := newPlace(t)
	const grace = time.Hour // a Run that waits for it times the test out
	a := open(t, p.text(endpointBlock("a", receiver.URL, local, "timeout {\n    total = \"10m\"\n  }")), grace)
	done := make(chan error, 1)
	go func() { done <- a.Run(t.Context()) }()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", p.socket())
		},
	}}
	post(t, client, "/v1/events/x.y", "application/json", []byte(`{}`))
	<-arrived

	mend := breakWrites(t)
	resp, err := client.Post("http://relay/v1/events/x.y", "application/json", strings.NewReader(`{}`))
	mend()
	if err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("an event that could not be written was answered %s", resp.Status)
		}
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "outbox") {
		t.Errorf("run ended with %v, want what broke the outbox", err)
	}
}

// breakWrites makes every write of this process to a file fail with EFBIG.
func breakWrites(t *testing.T) (mend func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
			t.Error(err)
		}
	}
}

// Package client is what the verbs share that talk to a running Relay: where it listens,
// one request, its refusals as errors with a remedy, and output as a table or as JSON.
package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"time"
)

// Limits of one request to a running Relay.
const (
	timeout   = 30 * time.Second
	maxAnswer = 64 << 20 // bytes; 10,000 endpoints take some 10 MB
)

// Target is a running Relay's listener.
type Target struct {
	Network, Addr string // as net.Dial takes them
	Token         string // bearer token; "" for none
	MaxBody       int    // bytes of one request to ingest, by the configuration
}

// Do sends one request to a running Relay and returns the status and the body of its
// answer, whatever the status.
func (t Target) Do(method, path string, header http.Header, body []byte) (int, []byte, error) {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, t.Network, t.Addr)
		},
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequest(method, "http://localhost"+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, fmt.Errorf("make request: %w", err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	if t.Token != "" {
		req.Header.Set("Authorization", "Bearer "+t.Token)
	}
	resp, err := (&http.Client{Transport: transport, Timeout: timeout}).Do(req)
	if err != nil {
		return 0, nil, t.unanswered(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return 0, nil, fmt.Errorf("read answer: %w", err)
	}
	if len(answer) > maxAnswer {
		return 0, nil, fmt.Errorf("the answer to %s is longer than %d MiB", path, maxAnswer>>20)
	}
	return resp.StatusCode, bytes.TrimSpace(answer), nil
}

// unanswered says why there is no answer, and what next.
func (t Target) unanswered(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s:%s may not be opened by this user: the socket's mode and its folder's say who may", t.Network, t.Addr)
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
		return fmt.Errorf("no Relay answers on %s:%s: start one with: relay serve", t.Network, t.Addr)
	}
	return fmt.Errorf("ask Relay: %w", err)
}

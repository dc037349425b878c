// Package client is the common part of verbs that talk to a running Relay: finding it, sending a
// request, its refusals as errors with a remedy, and output as a table or as JSON.
//
// Read in this order: find.go (where a Relay is, with a valid file or without one), running.go
// (the run file, which relay serve writes), Target, refusal.go, output.go.
package client

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"relay/internal/access"
)

// Limits of one request to a running Relay.
const (
	timeout   = 30 * time.Second
	maxAnswer = 64 << 20 // bytes; 10,000 endpoints take some 10 MB
)

// Target is a running Relay, at the addresses of one of its listeners.
type Target struct {
	Addrs   []Addr        // the first that takes the connection gets the request
	MaxBody int           // bytes of one request to ingest
	next    string        // what to do if no Relay answers
	pid     int           // of the process that says it listens there; 0 for unknown
	within  time.Duration // of one request; 0 = timeout
}

// Addr is where a listener is.
type Addr struct {
	Network, Address string // as net.Dial takes them: unix or tcp
	Token            string // bearer token; "" for none
}

func (a Addr) String() string { return a.Network + ":" + a.Address }

// At is a Target at one known address.
func At(network, address string) Target {
	return Target{Addrs: []Addr{{Network: network, Address: address}}}
}

func (t Target) String() string {
	var all []string
	for _, a := range t.Addrs {
		all = append(all, a.String())
	}
	return strings.Join(all, ", ")
}

// PID is the process that says it listens there, 0 if none does.
func (t Target) PID() int { return t.pid }

// Within is the target with another bound for one request than 30 s.
func (t Target) Within(d time.Duration) Target {
	t.within = d
	return t
}

// Request is what a Relay is asked.
type Request struct {
	Method, Path string // the path with its query
	Header       http.Header
	Body         []byte
}

// Do sends one request to a running Relay and returns the status and the body of its answer, with
// any status.
func (t Target) Do(r Request) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(t.within, timeout))
	defer cancel()
	resp, err := t.Open(ctx, r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return 0, nil, fmt.Errorf("read answer: %w", err)
	}
	if len(answer) > maxAnswer {
		return 0, nil, fmt.Errorf("the answer to %s is longer than %d MiB", r.Path, maxAnswer>>20)
	}
	return resp.StatusCode, bytes.TrimSpace(answer), nil
}

// Open sends one request to a running Relay and returns its answer, with any status, when the header
// has come. The caller closes the body. The answer ends with ctx.
func (t Target) Open(ctx context.Context, r Request) (*http.Response, error) {
	var failed []error
	for _, a := range t.Addrs {
		resp, err := a.open(ctx, r)
		if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
			failed = append(failed, err) // nothing was sent
			continue
		}
		return resp, err
	}
	return nil, t.unanswered(failed)
}

func (a Addr) open(ctx context.Context, r Request) (*http.Response, error) {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, a.Network, a.dialled())
		},
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, "http://localhost"+r.Path, bytes.NewReader(r.Body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	for name, values := range r.Header {
		req.Header[name] = values
	}
	if a.Token != "" {
		req.Header.Set("Authorization", "Bearer "+a.Token)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask Relay: %w", err)
	}
	return resp, nil
}

// dialled is the address, or for a socket whose path is longer than an address can be
// the path from the working directory.
func (a Addr) dialled() string {
	if a.Network != "unix" || len(a.Address) <= access.MaxSocketPath {
		return a.Address
	}
	wd, err := os.Getwd()
	if err != nil {
		return a.Address
	}
	if rel, err := filepath.Rel(wd, a.Address); err == nil && len(rel) < len(a.Address) {
		return rel
	}
	return a.Address
}

// unanswered says why no address took the connection, and what to do next.
func (t Target) unanswered(failed []error) error {
	for i, err := range failed {
		if errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("%s may not be opened by this user: the socket's mode and its folder's say who may", t.Addrs[i])
		}
	}
	next := t.next
	for i, err := range failed {
		if a := t.Addrs[i]; t.pid != 0 && a.Network == "unix" && errors.Is(err, fs.ErrNotExist) {
			next = fmt.Sprintf("the file of the socket %s is gone, although process %d runs: it makes the socket anew within 2 s where the folder is left; try again, and see its log", a.Address, t.pid)
			break
		}
	}
	if next == "" {
		next = "start one with: relay serve"
	}
	return fmt.Errorf("no Relay answers on %s: %s", t, next)
}

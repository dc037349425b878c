package trace

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"relay/internal/throttle"
)

const (
	queued      = 4096             // spans that may wait
	perRequest  = 512              // spans
	gatherFor   = time.Second      // how long the first span of a request waits for others
	exportLimit = 10 * time.Second // for one request
	tries       = 3                // of one request, as long as the collector may take it later
	firstPause  = time.Second      // before the second try; it doubles
	lastLimit   = time.Second      // for what is left at the end
	warnEvery   = time.Minute
	maxAnswer   = 64 << 10 // bytes of an answer that are read
)

// Options of a Tracer. URL must be given.
type Options struct {
	URL      string      // of the collector; /v1/traces is added
	Header   http.Header // of each request; may hold secrets
	Sample   float64     // share of the traces that begin here, 0 to 1
	Resource []Attribute
	Version  string // of Relay
	Log      zerolog.Logger
	Hush     func(string) string // removes what must not be shown from errors; optional
}

// Tracer samples traces and sends their spans. Its methods may be called at the same time; a nil
// Tracer records nothing.
type Tracer struct {
	o        Options
	queue    chan *Span
	client   *http.Client
	dropped  atomic.Uint64
	warnings throttle.Lines
}

// New makes a Tracer; Run sends.
func New(o Options) *Tracer {
	if o.Hush == nil {
		o.Hush = func(s string) string { return s }
	}
	o.Log = o.Log.With().Str("component", "trace").Logger()
	return &Tracer{
		o:     o,
		queue: make(chan *Span, queued),
		client: &http.Client{
			Transport:     &http.Transport{MaxIdleConns: 1, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		warnings: throttle.Lines{Every: warnEvery},
	}
}

// Begin returns the context of a new span below the kept context, and the parent's id. Without a
// kept context it begins a trace, and samples it. The caller records the span if it is Sampled.
func (t *Tracer) Begin(kept string) (own Context, parent SpanID) {
	if kept != "" {
		above := Parse(kept)
		return above.below(), above.Span
	}
	var flags byte
	if rand.Float64() < t.o.Sample {
		flags = sampled
	}
	return begin(flags).below(), SpanID{}
}

// Add hands a span over to be sent. It never blocks.
func (t *Tracer) Add(s *Span) {
	select {
	case t.queue <- s:
	default:
		t.dropped.Add(1)
	}
}

// Dropped is how many spans were lost since the start: the queue was full, or the collector did
// not take them.
func (t *Tracer) Dropped() uint64 {
	if t == nil {
		return 0
	}
	return t.dropped.Load()
}

// Run sends spans until ctx ends, and then those that wait, for a second at most.
func (t *Tracer) Run(ctx context.Context) {
	defer t.client.CloseIdleConnections()
	for {
		batch := t.gather(ctx)
		if ctx.Err() == nil {
			batch = t.send(ctx, batch)
		}
		if ctx.Err() != nil {
			t.finish(ctx, batch)
			return
		}
	}
}

// gather waits for spans.
func (t *Tracer) gather(ctx context.Context) (batch []*Span) {
	var full <-chan time.Time
	for len(batch) < perRequest {
		select {
		case s := <-t.queue:
			batch = append(batch, s)
			if full == nil {
				timer := time.NewTimer(gatherFor)
				defer timer.Stop()
				full = timer.C
			}
		case <-full:
			return batch
		case <-ctx.Done():
			return batch
		}
	}
	return batch
}

// finish sends what is left, each request once.
func (t *Tracer) finish(ctx context.Context, batch []*Span) {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastLimit)
	defer cancel()
	for {
		for len(batch) < perRequest && len(t.queue) > 0 {
			batch = append(batch, <-t.queue)
		}
		if len(batch) == 0 {
			return
		}
		if _, err := t.post(last, batch); err != nil {
			t.lose(len(batch), err)
		}
		batch = nil
	}
}

// send posts one request, again while the collector may take it later. It returns the batch if
// ctx ended before that was settled.
func (t *Tracer) send(ctx context.Context, batch []*Span) (left []*Span) {
	pause := firstPause
	for try := 1; ; try++ {
		again, err := t.post(ctx, batch)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return batch
		case !again || try == tries:
			t.lose(len(batch), err)
			return nil
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return batch
		}
		pause *= 2
	}
}

// lose counts spans that were not taken, and logs why.
func (t *Tracer) lose(n int, err error) {
	t.dropped.Add(uint64(n))
	if repeats, ok := t.warnings.Allow("lost"); ok {
		t.o.Log.Warn().Str("error", t.o.Hush(err.Error())).Int("repeats", repeats).
			Str("next", "look at the collector that otlp of the trace block names; events and deliveries go on without").Msg("spans were lost")
	}
}

// post sends one request. again says that the collector may take it later.
func (t *Tracer) post(ctx context.Context, batch []*Span) (again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, exportLimit)
	defer cancel()
	body := appendRequest(nil, t.o.Resource, t.o.Version, batch)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(t.o.URL, "/")+"/v1/traces", bytes.NewReader(body))
	if err != nil {
		return false, fmt.Errorf("make request: %w", err)
	}
	for name, values := range t.o.Header {
		req.Header[name] = values
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("User-Agent", "Relay/"+t.o.Version)
	res, err := t.client.Do(req)
	if err != nil {
		return true, fmt.Errorf("ask the collector: %w", err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	switch {
	case res.StatusCode/100 == 2:
		if n := rejected(answer); n > 0 {
			t.lose(int(min(n, int64(len(batch)))), fmt.Errorf("the collector rejected %d spans", n))
		}
		return false, nil // a body that broke off says no less
	case err != nil:
		return true, fmt.Errorf("read the collector's answer: %w", err)
	}
	switch res.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		again = true
	}
	return again, fmt.Errorf("the collector answered %s", res.Status)
}

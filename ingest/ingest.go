// Package ingest is the way in: it accepts, validates, routes, persists and answers.
// Ingest.Handle has the rules, on types that know no HTTP library. Events arrive over the
// connections of conn.go, from the listeners of package listen. The answer 202 is given after the
// outbox has committed the event with all its deliveries, never before.
package ingest

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"relay/ingest/problem"
	"relay/internal/throttle"
	"relay/internal/trace"
	"relay/outbox"
	"relay/policy"
)

const (
	// acceptTimeout bounds the wait for the outbox. It is shorter than the server's time limit
	// for an answer, so that a stuck outbox leads to a 503 and not to a closed connection.
	acceptTimeout = 10 * time.Second

	// warnEvery bounds the warnings about one code.
	warnEvery = 10 * time.Second

	defaultMaxBody     = 256 << 10
	defaultMaxInFlight = 64 << 20
)

// Appender is what ingest needs of an outbox engine: see outbox.Store.
type Appender interface {
	Accept(context.Context, outbox.Batch) ([]outbox.Receipt, error)
	Durability() string
}

// Options of an Ingest. Outbox and Route must be given.
type Options struct {
	Outbox Appender

	// Route names the endpoints that get an event, with terms for none or each of them. The
	// slices are only read; nil means that no endpoint wants events of its type. See
	// policy.Policy.Route.
	Route func(*outbox.Event) (names []string, terms []outbox.Term)

	// Type returns the declaration of an event type; see policy.Policy. nil: no type is declared.
	Type func(eventType string) (t *policy.EventType, known bool)

	MaxBody int64         // bytes of one request body; 0 = 256 KiB
	Index   []string      // paths of fields of each event's data; see outbox.Event.Fields
	Self    func() string // name of this Relay, for Event.Relay; optional
	Strict  bool          // refuse an event of a type that is not known, and one whose type no endpoint wants, instead of accepting it with 0 deliveries
	Log     zerolog.Logger

	// Trace records a span of each accept in a trace that is sampled; nil for none. KeepTrace
	// reports whether trace contexts of requests are kept anyway, for endpoints that send them
	// on; nil for never.
	Trace     *trace.Tracer
	KeepTrace func() bool

	maxInFlight int64 // of tests: bytes of all bodies being handled, at least MaxBody; 0 = 64 MiB
}

// Ingest turns requests into events. Its methods may be called at the same
// time.
type Ingest struct {
	o        Options
	inFlight atomic.Int64  // bytes of bodies being handled
	buffers  sync.Pool     // of *[]byte, for long bodies
	decoders sync.Pool     // of *decoder
	checks   chan struct{} // holds one for each check of a schema with long data: the check takes a hundred times the data's memory

	warnings throttle.Lines // by code
}

// New makes an Ingest.
func New(o Options) *Ingest {
	if o.MaxBody == 0 {
		o.MaxBody = defaultMaxBody
	}
	if o.maxInFlight == 0 {
		o.maxInFlight = defaultMaxInFlight
	}
	o.maxInFlight = max(o.maxInFlight, o.MaxBody)
	o.Log = o.Log.With().Str("component", "ingest").Logger()
	return &Ingest{o: o, warnings: throttle.Lines{Every: warnEvery}, checks: make(chan struct{}, runtime.GOMAXPROCS(0))}
}

// Request is one HTTP request, of any library. Its strings may be kept, its body may not.
type Request struct {
	Via             string // Event.Via
	Method          string
	Path            string // percent-decoded, without the query
	ContentType     string
	ContentEncoding string
	IdempotencyKey  []string // all values of that header
	TraceParent     string   // and TraceState: of those headers, if Relay keeps them
	TraceState      string
	Attributes      []Attribute // of a CloudEvent in binary mode: all headers that begin with "ce-"
	Body            []byte      // read only, and valid until Handle returns
}

// Response is the answer to a Request.
type Response struct {
	Status      int
	ContentType string
	Allow       string // value of that header, "" for none
	RetryAfter  int    // seconds, 0 for none
	Challenge   string // value of WWW-Authenticate, "" for none
	Close       bool   // the connection cannot be used again
	Body        []byte
}

// response is the answer with a problem.
func response(p *problem.Problem) Response {
	r := Response{
		Status:      p.Status,
		ContentType: problem.ContentType,
		RetryAfter:  p.Code.About().RetryAfter,
		Challenge:   p.Challenge(),
		Close:       p.Closes(),
		Body:        p.Body(),
	}
	if p.Code == problem.MethodNotAllowed {
		r.Allow = "POST"
	}
	return r
}

// Handle answers one request. It waits for the outbox until ctx ends, or 10 seconds if ctx has no
// deadline.
//
// If ctx ends during the commit, it is unknown whether the events were accepted. The app then
// repeats the request with the same id or Idempotency-Key, and gets the first receipt.
func (in *Ingest) Handle(ctx context.Context, r *Request) Response {
	began := time.Now()
	b, many, p := in.read(r)
	if p != nil {
		return response(p)
	}
	spans := in.follow(b.Entries, r, began)
	receipts, p := in.accept(ctx, b)
	in.record(spans, b.Entries, receipts, p)
	if p != nil {
		if !many {
			p.Index = nil // there is only one event
		}
		return response(p)
	}
	in.o.Log.Debug().Str("event_id", receipts[0].ID).Int("events", len(receipts)).Msg("accepted")
	in.tellFailed(b.Entries, receipts)
	return Response{
		Status:      202,
		ContentType: "application/json",
		Body:        receiptBody(receipts, many, cmp.Or(receipts[0].Durability, in.o.Outbox.Durability())),
	}
}

// read turns a request into a batch ready for the outbox. many is true for a batch, which is
// answered as one even if it has one event.
func (in *Ingest) read(r *Request) (b outbox.Batch, many bool, p *problem.Problem) {
	eventType, typed := strings.CutPrefix(r.Path, "/v1/events/")
	if (!typed && r.Path != "/v1/events") || (typed && strings.Contains(eventType, "/")) {
		return b, false, problem.New(problem.NotFound, "events are taken at /v1/events and /v1/events/{type}")
	}
	if r.Method != "POST" {
		return b, false, problem.New(problem.MethodNotAllowed, "events are taken with POST")
	}
	m, p := mediaOf(r, typed)
	if p != nil {
		return b, false, p
	}
	if b.Key, p = idempotencyKey(r.IdempotencyKey); p != nil {
		return b, false, p
	}

	d, ok := in.decoders.Get().(*decoder)
	if !ok {
		d = new(decoder)
	}
	defer in.decoders.Put(d)
	defer d.close()
	switch {
	case typed:
		b.Entries, p = d.typed(eventType, r.Body)
	case m == cloudBinary:
		b.Entries, p = d.binary(r)
	default:
		b.Entries, many, p = d.events(r.Body, m)
	}
	if p != nil {
		return b, many, p
	}
	in.note(b.Entries, r.Via)
	return b, many, in.complete(&b, many)
}

// note says in the events how they were accepted.
func (in *Ingest) note(entries []outbox.Entry, via string) {
	name := ""
	if in.o.Self != nil {
		name = in.o.Self()
	}
	for i := range entries {
		entries[i].Event.Via, entries[i].Event.Relay = via, name
	}
}

// complete adds missing fields, routes, and the fingerprints that identify repeats to the events.
func (in *Ingest) complete(b *outbox.Batch, many bool) *problem.Problem {
	if b.Key != "" {
		b.Fingerprint = batchFingerprint(b.Entries)
	}
	began := time.Now()
	now := began.UTC().Truncate(time.Microsecond)
	deliveries := 0
	for i := range b.Entries {
		e := &b.Entries[i]
		if e.Event.ID != "" {
			e.Fingerprint = fingerprint(e)
		} else {
			e.Event.ID = newID()
		}
		if e.Event.Time.IsZero() {
			e.Event.Time = now
		}
		in.index(&e.Event)
		if p := in.checkType(&e.Event); p != nil {
			if many {
				p.Index = new(i)
			}
			return p
		}
		if many && time.Since(began) > acceptTimeout/2 {
			return problem.New(problem.BatchTooLarge, "the schemas and filters of the batch's events take too long together; split it")
		}
		e.Endpoints, e.Terms = in.o.Route(&e.Event)
		if deliveries += len(e.Endpoints); deliveries > maxDeliveries && len(b.Entries) > 1 {
			return problem.New(problem.BatchTooLarge, "the events of a batch have at most 50,000 deliveries together; split it")
		}
		if slices.ContainsFunc(e.Terms, func(t outbox.Term) bool { return t.Code == policy.CodeBusy }) {
			return problem.New(problem.Overloaded, "too many events with expensive filters at once, and nothing was accepted; send it again later")
		}
		if e.Endpoints == nil && in.o.Strict {
			p := problem.New(problem.NoEndpoint, "no endpoint wants this type of event")
			p.Field = "type"
			if many {
				p.Index = new(i)
			}
			return p
		}
	}
	return nil
}

// checkType checks an event against the declaration of its type.
func (in *Ingest) checkType(e *outbox.Event) *problem.Problem {
	if in.o.Type == nil {
		return nil
	}
	t, known := in.o.Type(e.Type)
	if !known && in.o.Strict {
		p := problem.New(problem.UnknownType, "no event_type of the file has this name, and ingest is strict; relay types lists them")
		p.Field = "type"
		return p
	}
	if t == nil || t.Schema == nil {
		return nil
	}
	m := in.compare(t.Schema, e.Data)
	if m == nil {
		return nil
	}
	switch m.Code {
	case policy.CodeBusy:
		return problem.New(problem.Overloaded, "too many events with expensive schemas at once, and nothing was accepted; send it again later")
	case policy.CodeTooExpensive:
		p := problem.New(problem.TooExpensive, "the data cannot be compared with the schema of "+t.Name+" within its budget; make the data or the schema simpler, or raise budget of the event_type")
		p.Field = "data"
		return p
	}
	p := problem.New(problem.SchemaMismatch, "the data does not fit the schema of "+t.Name+": "+m.Error()+"; relay types shows it")
	p.Field, p.Pointer, p.Keyword = "data", m.Pointer, m.Keyword
	return p
}

// smallCheck is the size of data, in bytes, up to which checks against a schema run without limit
// on their number.
const smallCheck = 16 << 10

// checkWait is how long a check waits for others, so that its app has an answer in time.
const checkWait = acceptTimeout / 2

func (in *Ingest) compare(s *policy.Schema, data []byte) *policy.Mismatch {
	if len(data) > smallCheck { // only checks of long data may have to wait
		late := time.NewTimer(checkWait)
		defer late.Stop()
		select {
		case in.checks <- struct{}{}:
			defer func() { <-in.checks }() // also after a panic
		case <-late.C:
			return &policy.Mismatch{Code: policy.CodeBusy}
		}
	}
	return s.Check(data)
}

// newID makes the id of an event: a UUID of version 7, in its usual text form.
func newID() string {
	u := uuid.Must(uuid.NewV7()) // fails only without randomness, which ends a Go program anyway
	id := make([]byte, 0, 40)
	id = hex.AppendEncode(append(id, "evt_"...), u[:4])
	for _, part := range [][]byte{u[4:6], u[6:8], u[8:10], u[10:]} {
		id = hex.AppendEncode(append(id, '-'), part)
	}
	return string(id)
}

// accept commits the batch and returns the problem for the app.
func (in *Ingest) accept(ctx context.Context, b outbox.Batch) ([]outbox.Receipt, *problem.Problem) {
	if _, bounded := ctx.Deadline(); !bounded {
		within, cancel := context.WithTimeout(ctx, acceptTimeout)
		defer cancel()
		ctx = within
	}
	receipts, err := in.o.Outbox.Accept(ctx, b)
	if err == nil {
		return receipts, nil
	}

	var p *problem.Problem
	if conflict, ok := errors.AsType[*outbox.ConflictError](err); ok && conflict.Index >= 0 {
		p = problem.New(problem.IdempotencyConflict, "this id was used before, for an event with other content")
		p.Field, p.Index = "id", &conflict.Index
		return nil, p
	}
	switch {
	case errors.Is(err, outbox.ErrConflict):
		return nil, problem.New(problem.IdempotencyConflict, "this Idempotency-Key was used before, for a request with other content")
	case errors.Is(err, outbox.ErrFull):
		p = problem.New(problem.OutboxFull, "nothing was accepted, as the outbox or its disk is full; GET /readyz tells the operator which; send it again later")
	default:
		p = problem.New(problem.OutboxUnavailable, "the outbox did not confirm; send it again, with an id or Idempotency-Key it cannot become two events")
	}
	if !errors.Is(ctx.Err(), context.Canceled) { // otherwise the app has gone, which is no fault of the outbox
		in.warn(p.Code, err)
	}
	return nil, p
}

// tellFailed logs the deliveries that failed at accept, because they have no attempt whose line
// would say so, and no delivery fails silently (promise P7).
func (in *Ingest) tellFailed(entries []outbox.Entry, receipts []outbox.Receipt) {
	for i := range entries {
		e := &entries[i]
		for j := range e.Terms {
			t := &e.Terms[j]
			if t.Code == "" || receipts[i].Duplicate {
				continue
			}
			in.o.Log.Warn().Str("endpoint", e.Endpoints[j]).Str("event_id", receipts[i].ID).
				Str("state", string(outbox.Failed)).Str("code", t.Code).Str("error", t.Error).Msg("delivery failed without an attempt")
		}
	}
}

// warn logs the first error of a code, then one every 10 seconds with the number of repeats.
func (in *Ingest) warn(c problem.Code, err error) {
	if repeats, ok := in.warnings.Allow(string(c)); ok {
		in.o.Log.Warn().Err(err).Str("code", string(c)).Int("status", c.About().Status).Int("repeats", repeats).Msg("not accepted")
	}
}

// idempotencyKey checks the Idempotency-Key header: 1 to 255 visible ASCII characters. The prefix
// separates these keys from other keys in the same outbox.
func idempotencyKey(values []string) (string, *problem.Problem) {
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	invisible := func(r rune) bool { return r < '!' || r > '~' }
	if len(values) > 1 || key == "" || len(key) > 255 || strings.ContainsFunc(key, invisible) {
		return "", problem.New(problem.InvalidIdempotencyKey, "the Idempotency-Key header is given once, with 1 to 255 visible ASCII characters")
	}
	return "ingest:" + key, nil
}

// receiptBody writes the body of a 202. Ids and levels are plain ASCII words, which JSON does not
// escape.
func receiptBody(receipts []outbox.Receipt, many bool, durability string) []byte {
	b := make([]byte, 0, 80+80*len(receipts))
	if many {
		b = append(b, `{"events":[`...)
		for i, r := range receipts {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendReceipt(append(b, '{'), r), '}')
		}
		b = append(b, ']')
	} else {
		b = appendReceipt(append(b, '{'), receipts[0])
	}
	b = append(append(b, `,"durability":"`...), durability...)
	return append(b, "\"}\n"...)
}

func appendReceipt(b []byte, r outbox.Receipt) []byte {
	b = append(append(b, `"id":"`...), r.ID...)
	b = strconv.AppendInt(append(b, `","deliveries":`...), int64(r.Deliveries), 10)
	if r.Duplicate {
		b = append(b, `,"duplicate":true`...)
	}
	return b
}

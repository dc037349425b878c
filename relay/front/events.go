package front

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/andybalholm/brotli"

	"relay/config"
	"relay/ingest"
	"relay/ingest/problem"
)

// Headers by which an answer says that something happened. The first is the type and can be
// repeated, or be a list; the others belong to the types in their order.
const (
	headerEvent  = "Relay-Event"
	headerData   = "Relay-Event-Data"
	headerID     = "Relay-Event-Id"
	headerKey    = "Relay-Event-Key"
	headerTenant = "Relay-Event-Tenant"
)

const (
	maxEvents  = 100              // of one answer
	bodyWithin = 10 * time.Second // for a body that becomes data to come whole
	emitWithin = 10 * time.Second // for the outbox
)

// isEvent tells whether a header, in canonical form, is one of those above or looks like one.
func isEvent(name string) bool {
	return name == headerEvent || strings.HasPrefix(name, headerEvent+"-")
}

// removeEvents removes events from headers or trailers.
func removeEvents(h http.Header) {
	for name := range h {
		if isEvent(http.CanonicalHeaderKey(strings.TrimPrefix(name, http.TrailerPrefix))) {
			delete(h, name)
		}
	}
}

// said is what the headers of an answer say.
type said struct {
	types                    []string
	data, ids, keys, tenants []string
}

// takeEvents removes the headers of events and returns them.
func takeEvents(h http.Header) said {
	s := said{
		types: list(h[headerEvent]),
		data:  h[headerData], ids: list(h[headerID]), keys: h[headerKey], tenants: h[headerTenant],
	}
	removeEvents(h)
	return s
}

// list splits values at commas, as libraries join repeated headers.
func list(values []string) []string {
	var all []string
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			all = append(all, strings.TrimSpace(part))
		}
	}
	return all
}

// accept makes events of an answer, before any of it is passed on. The body that became data is
// put back. The error is an *eventError, or nil when all were accepted, or may be lost.
func (s *site) accept(res *http.Response, h said) error {
	p := s.emit(res, h)
	if o := s.f.o.Observe; o != nil {
		o.FrontEvents(len(h.types), p == nil)
	}
	if p == nil {
		return nil
	}
	if repeats, ok := s.f.lines.Allow(s.c.Host + " event " + string(p.Code)); ok {
		s.f.o.Log.Warn().Str("host", s.c.Host).Str("code", string(p.Code)).Str("error", p.Detail).Int("events", len(h.types)).Int("repeats", repeats).
			Msg("events of an answer were not accepted")
	}
	if s.c.Events.OnRefused == "pass" {
		return nil
	}
	return &eventError{answerFor(p)}
}

// answerFor is what the client gets: the app's answer was right, but its event is not kept.
func answerFor(p *problem.Problem) *problem.Problem {
	code := problem.EventInvalid
	if p.Status == http.StatusServiceUnavailable || p.Status == http.StatusInsufficientStorage {
		code = problem.EventRefused
	}
	return problem.New(code, string(p.Code)+": "+p.Detail)
}

func (s *site) emit(res *http.Response, h said) *problem.Problem {
	events, p := h.events()
	if p != nil {
		return p
	}
	var whole []byte
	for i := range events {
		if events[i].Data != nil {
			continue
		}
		if whole == nil {
			if whole, p = s.data(res); p != nil {
				return p
			}
		}
		events[i].Data = whole
	}
	// A client that leaves does not undo what happened.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(res.Request.Context()), emitWithin)
	defer cancel()
	return s.f.o.Ingest.Emit(ctx, events)
}

// events puts the headers together. Data is nil where the body is the data.
func (h said) events() ([]ingest.Event, *problem.Problem) {
	n := len(h.types)
	if n > maxEvents {
		return nil, problem.New(problem.BatchTooLarge, fmt.Sprintf("an answer has at most %d events, this one has %d", maxEvents, n))
	}
	for _, part := range []struct {
		name   string
		values []string
		one    bool // one value may be for all
	}{{headerData, h.data, true}, {headerID, h.ids, false}, {headerKey, h.keys, true}, {headerTenant, h.tenants, true}} {
		if len(part.values) > 0 && len(part.values) != n && !(part.one && len(part.values) == 1) {
			return nil, problem.New(problem.MissingField, fmt.Sprintf("%s is there %d times for %d events: give it for each of them, an empty one for none", part.name, len(part.values), n))
		}
	}
	of := func(values []string, i int) string {
		switch len(values) {
		case 0:
			return ""
		case 1:
			return values[0]
		}
		return values[i]
	}
	events := make([]ingest.Event, n)
	for i := range events {
		events[i] = ingest.Event{Type: h.types[i], ID: of(h.ids, i), Key: of(h.keys, i), Tenant: of(h.tenants, i)}
		if data := of(h.data, i); data != "" {
			events[i].Data = []byte(data)
		}
	}
	return events, nil
}

// data reads the body of an answer as data, and puts it back for the client. No body is null.
func (s *site) data(res *http.Response) ([]byte, *problem.Problem) {
	switch {
	case isStream(res.Header):
		return nil, problem.New(problem.UnsupportedData, "the answer is a stream, which has no end to become data at: send the data in "+headerData)
	case res.Request.Method == http.MethodHead || res.StatusCode == http.StatusNoContent || res.ContentLength == 0:
		return []byte("null"), nil
	case !isJSON(res.Header.Get("Content-Type")):
		return nil, problem.New(problem.UnsupportedData, "the body of the answer is not JSON: send the data in "+headerData)
	}
	raw, p := s.whole(res)
	if p != nil {
		return nil, p
	}
	data, err := decoded(raw, res.Header.Get("Content-Encoding"), s.c.Events.MaxData)
	switch {
	case errors.Is(err, errLong):
		return nil, s.longData()
	case err != nil:
		return nil, problem.New(problem.UnsupportedEncoding, "the body of the answer cannot be decoded ("+err.Error()+"): send the data in "+headerData)
	case len(bytes.TrimSpace(data)) == 0:
		return []byte("null"), nil
	}
	return data, nil
}

func (s *site) longData() *problem.Problem {
	return problem.New(problem.BodyTooLarge, "the body of the answer has more than "+config.FormatSize(s.c.Events.MaxData)+": raise events.max_data, or send the data in "+headerData)
}

// whole reads a body as it came. Whatever happens, what was read is put back in front of the
// rest, which the client can still have.
func (s *site) whole(res *http.Response) ([]byte, *problem.Problem) {
	limit := s.c.Events.MaxData
	if res.ContentLength > limit {
		return nil, s.longData()
	}
	a := readAhead(res.Request.Context(), res.Body)
	err := a.collect(limit, bodyWithin)
	raw := a.rest
	res.Body = a
	switch {
	case errors.Is(err, errLate):
		return nil, problem.New(problem.UnsupportedData, "the body of the answer did not come whole within "+bodyWithin.String()+": send the data of a stream in "+headerData)
	case errors.Is(err, errLong):
		return nil, s.longData()
	case err != nil:
		return nil, problem.New(problem.InvalidBody, "the body of the answer ended early")
	}
	return raw, nil
}

func isJSON(contentType string) bool {
	kind, _, _ := strings.Cut(contentType, ";")
	kind = strings.ToLower(strings.TrimSpace(kind))
	return kind == "application/json" || strings.HasPrefix(kind, "application/") && strings.HasSuffix(kind, "+json")
}

var (
	errLong = errors.New("it is too long")
	errLate = errors.New("it did not come in time")
)

// ahead is a body that a goroutine reads, so that waiting for it can be given up without losing
// what comes.
type ahead struct {
	io.Closer
	ctx    context.Context
	chunks chan chunk
	rest   []byte // read, and not passed on yet
	err    error
}

type chunk struct {
	data []byte
	err  error
}

func readAhead(ctx context.Context, body io.ReadCloser) *ahead {
	a := &ahead{Closer: body, ctx: ctx, chunks: make(chan chunk)}
	go func() {
		for {
			c := chunk{data: make([]byte, copyBuffer)}
			var n int
			n, c.err = body.Read(c.data)
			c.data = c.data[:n]
			select {
			case a.chunks <- c:
			case <-ctx.Done():
				return
			}
			if c.err != nil {
				return
			}
		}
	}()
	return a
}

// collect waits for the end of the body. Errors: errLong, errLate, those of the body.
func (a *ahead) collect(limit int64, within time.Duration) error {
	timer := time.NewTimer(within)
	defer timer.Stop()
	for a.err == nil {
		select {
		case c := <-a.chunks:
			a.rest, a.err = append(a.rest, c.data...), c.err
		case <-timer.C:
			return errLate
		}
		if int64(len(a.rest)) > limit {
			return errLong
		}
	}
	if errors.Is(a.err, io.EOF) {
		return nil
	}
	return a.err
}

func (a *ahead) Read(p []byte) (int, error) {
	if len(a.rest) == 0 && a.err == nil {
		select {
		case c := <-a.chunks:
			a.rest, a.err = c.data, c.err
		case <-a.ctx.Done():
			return 0, a.ctx.Err()
		}
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	if len(a.rest) == 0 {
		return n, a.err
	}
	return n, nil
}

// decoded undoes a Content-Encoding, up to limit bytes.
func decoded(raw []byte, coding string, limit int64) ([]byte, error) {
	var from io.Reader = bytes.NewReader(raw)
	var err error
	switch strings.ToLower(strings.TrimSpace(coding)) {
	case "", "identity":
		return raw, nil
	case "gzip", "x-gzip":
		from, err = gzip.NewReader(from)
	case "deflate":
		from, err = zlib.NewReader(from)
	case "br":
		from = brotli.NewReader(from)
	default:
		return nil, fmt.Errorf("Content-Encoding %s is not known", strconv.Quote(coding))
	}
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(from, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = errLong
	}
	return data, err
}

// readable leaves only codings in Accept-Encoding that decoded knows.
func readable(h http.Header) {
	asked := h["Accept-Encoding"]
	if len(asked) == 0 {
		return
	}
	known := []string{"gzip", "deflate", "br", "identity"}
	var kept []string
	for _, part := range list(asked) {
		name, _, _ := strings.Cut(part, ";")
		if slices.Contains(known, strings.ToLower(strings.TrimSpace(name))) {
			kept = append(kept, part)
		}
	}
	if len(kept) == 0 {
		kept = []string{"identity"}
	}
	h["Accept-Encoding"] = []string{strings.Join(kept, ", ")}
}

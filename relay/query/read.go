package query

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"relay/config"
	"relay/ingest/problem"
	"relay/outbox"
	"relay/policy"
	"relay/policy/rfc3339"
)

func readEndpoint(q *Query, _ *reader, v string) error {
	q.find.Endpoints = append(q.find.Endpoints, v)
	return nil
}

func readState(q *Query, _ *reader, v string) error {
	if v == "success" {
		v = string(outbox.Delivered)
	}
	if !slices.Contains(q.states, v) {
		q.states = append(q.states, v)
	}
	return nil
}

// readType reads patterns into one matcher, together with those before.
func readType(q *Query, r *reader, v string) error {
	if _, err := policy.NewMatcher([]string{v}); err != nil {
		_, why, _ := strings.Cut(err.Error(), ": ")
		return r.refuse("%s: %s", quote(v), why)
	}
	q.find.Types = append(q.find.Types, v)
	return nil
}

func readEvent(q *Query, r *reader, v string) error {
	switch {
	case strings.HasPrefix(v, "dlv_"):
		return r.refuse("is %s, the id of a delivery: GET /v1/deliveries/{id} has it, and names its event", quote(v))
	case policy.ValidID(v) != nil:
		return r.refuse("is an id of 1 to 64 letters, digits, _ and -")
	}
	q.find.Event = v
	return nil
}

func readTenant(q *Query, r *reader, v string) error {
	q.find.Tenants = append(q.find.Tenants, v)
	return r.plain(v)
}

func readKey(q *Query, r *reader, v string) error {
	q.find.Key = v
	return r.plain(v)
}

func readLabel(q *Query, r *reader, v string) error {
	q.labels = append(q.labels, label{strings.TrimPrefix(r.name, "label."), v})
	return r.plain(v)
}

// plain refuses what no event and no label can have.
func (r *reader) plain(v string) error {
	if len(v) > 255 || strings.ContainsFunc(v, func(c rune) bool { return c < ' ' || c == 0x7f || c == '\ufffd' }) {
		return r.refuse("is 1 to 255 bytes of UTF-8 without control characters")
	}
	return nil
}

func readStatus(q *Query, r *reader, v string) error {
	if len(v) == 3 && strings.HasSuffix(strings.ToLower(v), "xx") && '1' <= v[0] && v[0] <= '5' {
		class := int(v[0]-'0') * 100
		q.find.Status = outbox.Range{Min: class, Max: class + 99}
		return nil
	}
	numbers, ok := readRange(v, 100, 599)
	if !ok {
		return r.refuse("is %s; write a status like 503, a class like 5xx, >=500 or <=499", quote(v))
	}
	q.find.Status = numbers
	if numbers.Min == 0 {
		q.find.Status.Min = 100 // an attempt without an answer has status 0
	}
	return nil
}

func readAttempts(q *Query, r *reader, v string) error {
	numbers, ok := readRange(v, 0, 1000)
	if !ok {
		return r.refuse("is %s; write 3, >=3 or <=3, with a number from 0 to 1000", quote(v))
	}
	if numbers == (outbox.Range{}) && !strings.HasPrefix(v, ">") {
		numbers.Max = -1 // none at all
	}
	q.find.Attempts = numbers
	return nil
}

// readRange reads "3", ">=3" or "<=3".
func readRange(v string, least, most int) (outbox.Range, bool) {
	digits, from := strings.CutPrefix(v, ">=")
	digits, to := strings.CutPrefix(digits, "<=")
	n, ok := number(digits, least, most)
	switch {
	case !ok || from && to:
		return outbox.Range{}, false
	case from:
		return outbox.Range{Min: n}, true
	case to:
		return outbox.Range{Max: n}, true
	}
	return outbox.Range{Min: n, Max: n}, true
}

// number reads digits alone.
func number(v string, least, most int) (int, bool) {
	n, err := strconv.ParseUint(v, 10, 31)
	return int(n), err == nil && int(n) >= least && int(n) <= most
}

func readCode(q *Query, r *reader, v string) error {
	if strings.ContainsFunc(v, func(c rune) bool { return !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '_') }) {
		return r.refuse("is %s; codes are written like http_503", quote(v))
	}
	q.find.Code = v
	return nil
}

func readManual(q *Query, _ *reader, v string) error {
	q.find.Manual = new(v == "true")
	return nil
}

func readResent(q *Query, _ *reader, v string) error {
	q.find.Resent = new(v == "true")
	return nil
}

func readSince(q *Query, r *reader, v string) error { return r.time(v, &q.Span.Since) }
func readUntil(q *Query, r *reader, v string) error { return r.time(v, &q.Span.Until) }

func readAttemptedSince(q *Query, r *reader, v string) error {
	return r.time(v, &q.find.Attempted.Since)
}

func readAttemptedUntil(q *Query, r *reader, v string) error {
	return r.time(v, &q.find.Attempted.Until)
}

// epoch is the earliest time that can be asked for, and the zero time is none.
var epoch = time.Unix(0, 0)

// Moment reads a time, or a duration back from now, of a parameter that is not of the filter. Errors: *Error.
func Moment(name, value string, now time.Time) (at time.Time, err error) {
	r := &reader{Parser: Parser{Now: now}, name: name}
	err = r.time(value, &at)
	return at, err
}

func (r *reader) time(v string, to *time.Time) error {
	d, err := config.ParseDuration(v)
	if err == nil {
		*to = r.Now.Add(-d)
	} else if *to, err = rfc3339.Parse([]byte(v)); err != nil {
		detail := `is %s; write a time like 2026-01-31T12:00:00Z, or a duration back from now like 30m, 2h or 7d`
		if strings.Contains(v, " ") && strings.Contains(v, ":") {
			detail += "; in an address + is written %%2B"
		}
		return r.refuse(detail, quote(v))
	}
	*to = to.UTC()
	if to.Before(epoch) || to.Year() > 9999 {
		return r.refuse("is %s; it is from 1970 to 9999", quote(v))
	}
	return nil
}

func readData(q *Query, r *reader, v string) error {
	path := r.name
	if len(path) > 128 {
		return r.refuse("is longer than 128 bytes")
	}
	if r.Indexed != nil && !r.Indexed(path) {
		return &Error{problem.NotIndexed, path, fmt.Sprintf(`%s is not indexed: write index = [%q] into the block ingest or event_type of the file; events that are accepted from then on can be found by it`, path, path)}
	}
	if len(q.find.Fields) == outbox.MaxFields {
		return r.refuse("is one field too many: a filter has at most %d", outbox.MaxFields)
	}
	q.find.Fields = append(q.find.Fields, outbox.Field{Path: path, Value: v})
	return nil
}

func readOrder(q *Query, _ *reader, v string) error {
	q.Oldest = v == "oldest"
	return nil
}

func readLimit(q *Query, r *reader, v string) (err error) {
	q.Limit, err = r.number(v, 1, outbox.MaxPage)
	return err
}

func readOffset(q *Query, r *reader, v string) (err error) {
	q.Offset, err = r.number(v, 0, outbox.MaxOffset)
	return err
}

func (r *reader) number(v string, least, most int) (int, error) {
	n, ok := number(v, least, most)
	if !ok {
		return 0, r.refuse("is %s; it is a number from %d to %d", quote(v), least, most)
	}
	return n, nil
}

var errCursor = errors.New("cursor is none of this list: ask for the first page again, without it")

// pageTime is the time in a cursor, that of the first page.
func (r *reader) pageTime(v string) (time.Time, error) {
	micros, _, ok := strings.Cut(v, ".")
	n, err := strconv.ParseInt(micros, 36, 64)
	at := time.UnixMicro(n).UTC()
	if !ok || err != nil || len(v) > maxCursor || at.Before(firstCursor) || at.After(r.Now.Add(config.Day)) {
		return time.Time{}, errCursor
	}
	return at, nil
}

// firstCursor is before all cursors of Relay, so that most other texts are none.
var firstCursor = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// readCursor reads what Next wrote. together compares its digest, when all is known.
func readCursor(q *Query, _ *reader, v string) error {
	q.cursor = v
	return nil
}

func readTotal(q *Query, _ *reader, v string) error {
	q.Total = v == "true"
	return nil
}

func readBacklog(q *Query, _ *reader, v string) error {
	q.Backlog = v == "true"
	return nil
}

func readRate(q *Query, r *reader, v string) (err error) {
	q.Rate, err = r.number(v, 1, 10_000)
	return err
}

func readBy(q *Query, _ *reader, v string) error {
	q.By = v
	return nil
}

func readStep(q *Query, _ *reader, v string) error {
	q.Step = v
	return nil
}

// together checks what parameters say about each other, and finishes the query.
func (r *reader) together(q *Query, use Use) error {
	if err := r.order("until", "since", q.Span); err != nil {
		return err
	}
	if err := r.order("attempted_until", "attempted_since", q.find.Attempted); err != nil {
		return err
	}
	if use&Stats == 0 {
		q.find.Accepted = q.Span
	}
	has := func(state string) bool { return slices.Contains(q.states, state) }
	if r.name = "state"; len(q.states) > 1 && has(held) != has(string(outbox.Pending)) {
		return r.refuse("cannot be pending or held alone beside others: ask for all that are not over with both of them, or ask twice")
	}
	if err := q.matchTypes(); err != nil {
		return err
	}
	if q.cursor == "" {
		return nil
	}
	if r.name = "offset"; q.asks.Has("offset") {
		return r.refuse("and cursor exclude each other: a cursor has the place already")
	}
	_, rest, _ := strings.Cut(q.cursor, ".")
	digest, engine, ok := strings.Cut(rest, ".")
	switch {
	case !ok || engine == "":
		return &Error{problem.InvalidCursor, "cursor", errCursor.Error()}
	case digest != q.digest():
		return &Error{problem.InvalidCursor, "cursor", "cursor is of another filter or order: ask with the same ones, or for the first page again, without it"}
	}
	q.Cursor = engine
	return nil
}

func (r *reader) order(until, since string, s outbox.Span) error {
	if r.name = until; !s.Since.IsZero() && !s.Until.IsZero() && !s.Since.Before(s.Until) {
		return r.refuse("is not after %s", since)
	}
	return nil
}

// matchTypes makes a function of types with patterns; others an engine finds by its index.
func (q *Query) matchTypes() error {
	if !slices.ContainsFunc(q.find.Types, func(t string) bool { return strings.ContainsAny(t, "*!") }) {
		return nil
	}
	m, err := policy.NewMatcher(q.find.Types)
	if err != nil {
		return err // each one was checked
	}
	q.find.Types, q.find.TypeLike = nil, m.Match
	return nil
}

package outbox

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"time"
)

// History is the part of an engine that finds deliveries. It changes nothing, and its work
// holds up no accept for more than a few milliseconds.
//
//	G21 A page has the deliveries that match its query, newest accept first (about, as in G3), and no
//	    other ones. Following Next shows each delivery that was there from the first page
//	    to the last, and matched all the time, exactly once, whatever is accepted, settled and reaped
//	    meanwhile.
type History interface {
	// LookupDelivery returns the event of a delivery with that delivery alone. Errors:
	// ErrNotFound, ErrUnavailable, ErrClosed, the context's.
	LookupDelivery(ctx context.Context, id string) (*Record, error)

	// Deliveries returns a page of the deliveries that match q. It does a bounded amount of work,
	// so a page may hold fewer than q.Limit, or none, and still have a Next. Errors: ErrCursor,
	// ErrUnavailable, ErrClosed, the context's.
	Deliveries(ctx context.Context, q Query) (Page, error)

	// Count counts the deliveries that match f until ctx ends; exact is false if that was too
	// early, and n is then at least so many. The end of ctx is no error. Errors: ErrUnavailable,
	// ErrClosed.
	Count(ctx context.Context, f Filter) (n int64, exact bool, err error)

	// Ages returns how long ago the pending deliveries of an endpoint were accepted: for each
	// quantile (0 to 1, rising) the age that this part of them does not exceed, about. nil if none
	// is pending. Errors: ErrUnavailable, ErrClosed, the context's.
	Ages(ctx context.Context, endpoint string, quantiles []float64) ([]time.Duration, error)
}

// ErrCursor: the cursor is of another outbox, another query (see [Query.Sum]), another version, or none at all.
var ErrCursor = errors.New("cursor is not one of this outbox and query")

// Filter selects deliveries. All that is set must hold; the zero value selects all.
type Filter struct {
	Endpoints []string // one of these; nil for all; empty for none
	Except    []string // none of these
	States    []State  // one of these; nil for all

	Types    []string                    // one of these; nil for all
	TypeLike func(eventType string) bool // holds for the type; nil for all. An engine may ask it for each type it knows

	Event   string   // id of the event
	Tenants []string // one of these; nil for all
	Key     string
	Fields  []Field // all of these, of Event.Fields

	Status   Range  // of the last attempt
	Code     string // of the delivery
	Attempts Range  // recorded so far
	Manual   *bool  // Delivery.Manual
	Resent   *bool  // Item.Resent. An engine reads each delivery that matches otherwise

	Accepted  Span // Delivery.Created
	Attempted Span // start of the last attempt; a set one leaves out deliveries without an attempt
}

// Range of whole numbers from 0, both ends included. The zero value holds all; Max 0 is no upper bound, and
// Max -1 leaves 0 alone.
type Range struct{ Min, Max int }

// Has tells whether n is in the range.
func (r Range) Has(n int) bool { return n >= r.Min && (r.Max == 0 || n <= max(r.Max, 0)) }

// Span of time, from Since and before Until. A zero end is open.
type Span struct{ Since, Until time.Time }

// Has tells whether t is in the span.
func (s Span) Has(t time.Time) bool {
	return (s.Since.IsZero() || !t.Before(s.Since)) && (s.Until.IsZero() || t.Before(s.Until))
}

// open tells whether the span holds all times.
func (s Span) open() bool { return s.Since.IsZero() && s.Until.IsZero() }

// Field is the value of an indexed field of an event's data.
type Field struct {
	Path  string // as the file names it, like "data.deviceId"; at most 128 bytes
	Value string // a string as it is, a number as it was written, true or false; at most 256 bytes
}

// Match tells whether the filter holds for a delivery.
func (f *Filter) Match(i *Item) bool {
	return anyOf(f.Endpoints, i.Endpoint) && !slices.Contains(f.Except, i.Endpoint) &&
		anyOf(f.States, i.State) &&
		anyOf(f.Types, i.Type) && (f.TypeLike == nil || f.TypeLike(i.Type)) &&
		(f.Event == "" || f.Event == i.EventID) &&
		anyOf(f.Tenants, i.Tenant) && (f.Key == "" || f.Key == i.Key) &&
		f.matchFields(i.Fields) && f.matchAttempts(i)
}

func (f *Filter) matchFields(fields []Field) bool {
	for _, want := range f.Fields {
		if !slices.Contains(fields, want) {
			return false
		}
	}
	return true
}

func (f *Filter) matchAttempts(i *Item) bool {
	status, started := 0, time.Time{}
	if i.Last != nil {
		status, started = i.Last.Status, i.Last.Started
	}
	return f.Status.Has(status) && (f.Code == "" || f.Code == i.Code) && f.Attempts.Has(i.Attempts) &&
		(f.Manual == nil || *f.Manual == i.Manual) && (f.Resent == nil || *f.Resent == i.Resent) &&
		f.Accepted.Has(i.Created) &&
		(f.Attempted.open() || i.Last != nil && f.Attempted.Has(started))
}

// anyOf tells whether list is nil or has v.
func anyOf[T comparable](list []T, v T) bool { return list == nil || slices.Contains(list, v) }

// Query asks for a page of deliveries.
type Query struct {
	Filter
	Oldest bool   // oldest accept first
	Limit  int    // 1 to MaxPage
	Cursor string // Next of the page before; "" for the first page
	Offset int    // how many to leave out of the first page, at most MaxOffset; 0 with a Cursor
}

// Check returns an error if the query's numbers are out of their bounds.
func (q *Query) Check() error {
	switch {
	case q.Limit < 1 || q.Limit > MaxPage:
		return fmt.Errorf("limit of a page is %d: it can be from 1 to %d", q.Limit, MaxPage)
	case q.Offset < 0 || q.Offset > MaxOffset:
		return fmt.Errorf("offset of a page is %d: it can be from 0 to %d", q.Offset, MaxOffset)
	case q.Offset > 0 && q.Cursor != "":
		return errors.New("a page has a cursor or an offset, not both")
	}
	return nil
}

// Sum is a hash of what the pages of a query have in common; an engine puts it into its cursors. What may change from
// page to page is not part of it: the times of the spans ("the last hour"), and Endpoints and Except (those that are paused
// now). Of TypeLike only that it is set.
func (q *Query) Sum() uint64 {
	h := fnv.New64a()
	manual := ""
	if q.Manual != nil {
		manual = strconv.FormatBool(*q.Manual)
	}
	_, _ = fmt.Fprintf(h, "%#v %#v %t %q %#v %q %#v %v %q %v %q %t %t %t", // a hash takes all
		q.States, q.Types, q.TypeLike != nil, q.Event, q.Tenants, q.Key, q.Fields,
		q.Status, q.Code, q.Attempts, manual, q.Accepted.open(), q.Attempted.open(), q.Oldest)
	if q.Resent != nil { // so that cursors of other queries are those of older versions
		_, _ = fmt.Fprintf(h, " resent %t", *q.Resent)
	}
	return h.Sum64()
}

const (
	// MaxPage is the largest Query.Limit.
	MaxPage = 100
	// MaxOffset is the largest Query.Offset.
	MaxOffset = 10_000
)

// Page is the answer to a Query.
type Page struct {
	Items []Item
	Next  string // cursor of the next page, "" after the last one; opaque, at most 512 bytes, safe in a URL
}

// Item is a delivery in a Page.
type Item struct {
	Delivery

	Type, Tenant, Key string    // of its event
	Time              time.Time // Event.Time
	Fields            []Field   // of its event
	Erased            bool      // the event's data was erased
	Resent            bool      // an operator made a later delivery of the event to the same endpoint, which is kept

	Last  *Attempt // without Request, Head and Body; nil if there was none
	Error string   // of the Term that failed it at accept, or of the last attempt
}

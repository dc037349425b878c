package query

import (
	"strings"

	"relay/outbox"
)

// Use says which routes take a parameter.
type Use uint8

const (
	// Lists are GET /v1/deliveries and its verb.
	Lists Use = 1 << iota
	// Bulk is routes that act on all deliveries of a filter.
	Bulk
	// Tail is GET /v1/tail.
	Tail
	// Stats is GET /v1/stats.
	Stats
)

const always = Lists | Bulk | Tail | Stats

// Param is a name of the filter.
type Param struct {
	Name    string // one that ends with "." is followed by a name that the caller chooses
	Kind    string // of its value, for people
	Use     Use
	Many    bool     // may be given more than once: one of the values must hold
	Values  []string // the possible ones; nil for others
	Example string
	About   string

	read func(q *Query, r *reader, value string) error
}

// held is the state of pending deliveries whose endpoint takes none now.
const held = "held"

// Params is all names of the filter, in the order of the docs.
func Params() []Param {
	return []Param{
		{Name: "endpoint", Kind: "name", Use: always, Many: true, Example: "billing", About: "endpoint that gets the delivery", read: readEndpoint},
		{Name: "state", Kind: "word", Use: Lists | Bulk | Tail, Many: true, Example: "failed", read: readState,
			Values: []string{string(outbox.Pending), held, string(outbox.Delivered), string(outbox.Failed), string(outbox.Discarded), "success"},
			About:  "`held` is pending at an endpoint that takes none now, `pending` is all other that are not over, `success` is `delivered`"},
		{Name: "type", Kind: "pattern", Use: always, Many: true, Example: "invoice.*", About: "type of the event; a pattern as in `events` of an endpoint", read: readType},
		{Name: "event", Kind: "id", Use: Lists | Bulk | Tail, Example: "evt_0192f5d4c0de7000", About: "id of the event", read: readEvent},
		{Name: "tenant", Kind: "text", Use: always, Many: true, Example: "acme", About: "tenant of the event", read: readTenant},
		{Name: "key", Kind: "text", Use: Lists | Bulk | Tail, Example: "order-17", About: "key of the event", read: readKey},
		{Name: "label.", Kind: "text", Use: always, Example: "website", About: "`label.NAME`: label of the endpoint", read: readLabel},
		{Name: "status", Kind: "status", Use: Lists | Bulk | Tail, Example: "5xx", About: "HTTP status of the last attempt: `503`, `5xx`, `>=500` or `<=499`", read: readStatus},
		{Name: "code", Kind: "code", Use: Lists | Bulk | Tail, Example: "http_503", About: "code of the state or of the last attempt", read: readCode},
		{Name: "attempts", Kind: "number", Use: Lists | Bulk | Tail, Example: ">=3", About: "attempts so far: `3`, `>=3` or `<=3`; `0` for none", read: readAttempts},
		{Name: "manual", Kind: "true or false", Use: Lists | Bulk | Tail, Values: []string{"true", "false"}, Example: "true", About: "made by an operator: a test or a redelivery", read: readManual},
		{Name: "resent", Kind: "true or false", Use: Lists | Bulk, Values: []string{"true", "false"}, Example: "false", About: "the event was sent again to the same endpoint by a later delivery; `state=failed&resent=false` is what failed in the end", read: readResent},
		{Name: "since", Kind: "time", Use: Lists | Bulk | Stats, Example: "2h", About: "accepted at or after this time: RFC 3339, or a duration back from now", read: readSince},
		{Name: "until", Kind: "time", Use: Lists | Bulk | Stats, Example: "2026-01-31T12:00:00Z", About: "accepted before this time", read: readUntil},
		{Name: "attempted_since", Kind: "time", Use: Lists | Bulk, Example: "30m", About: "last attempt began at or after this time", read: readAttemptedSince},
		{Name: "attempted_until", Kind: "time", Use: Lists | Bulk, Example: "5m", About: "last attempt began before this time", read: readAttemptedUntil},
		{Name: "data.", Kind: "text", Use: Lists | Bulk | Tail, Example: "cam-7", About: "`data.PATH`: value in the event's data, for paths that `index` of the file names", read: readData},
		{Name: "order", Kind: "word", Use: Lists, Values: []string{"newest", "oldest"}, Example: "oldest", About: "by the time of accept; `newest` first by default", read: readOrder},
		{Name: "limit", Kind: "number", Use: Lists, Example: "50", About: "items of a page, 1 to 100; 20 by default", read: readLimit},
		{Name: "cursor", Kind: "text", Use: Lists, Example: "", About: "`next` of the page before, with the same filter", read: readCursor},
		{Name: "offset", Kind: "number", Use: Lists, Example: "40", About: "items to leave out, at most 10,000, without `cursor`", read: readOffset},
		{Name: "total", Kind: "true or false", Use: Lists, Values: []string{"true", "false"}, Example: "false", About: "count all pages, for 200 ms at most; `true` by default", read: readTotal},
		{Name: "rate", Kind: "number", Use: Tail, Example: "10", About: "at most this many attempts in a second, 1 to 10,000; what comes beside them is counted as lost. All by default", read: readRate},
		{Name: "by", Kind: "word", Use: Stats, Values: []string{"endpoint", "type", "tenant"}, Example: "endpoint", About: "one row for each of them", read: readBy},
		{Name: "backlog", Kind: "true or false", Use: Stats, Values: []string{"true", "false"}, Example: "false", About: "with the present backlog and its ages; `true` by default", read: readBacklog},
		{Name: "step", Kind: "word", Use: Stats, Values: []string{"hour", "day", "week", "month"}, Example: "day", About: "one row for each of them, in UTC; weeks begin on Monday", read: readStep},
	}
}

// For is the parameters that a route takes.
func For(u Use) []Param {
	var all []Param
	for _, p := range Params() {
		if p.Use&u != 0 {
			all = append(all, p)
		}
	}
	return all
}

// param returns the parameter of a name, nil if there is none.
func param(name string) *Param {
	for _, p := range Params() {
		if rest, begins := strings.CutPrefix(name, p.Name); begins && (rest == "") != strings.HasSuffix(p.Name, ".") {
			return &p
		}
	}
	return nil
}

// Shown is the name for people: label.NAME, data.PATH.
func (p *Param) Shown() string {
	switch p.Name {
	case "label.":
		return "label.NAME"
	case "data.":
		return "data.PATH"
	}
	return p.Name
}

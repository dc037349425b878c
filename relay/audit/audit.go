// Package audit is the record of what operators changed: who, when, what, and how many deliveries it was
// about. It is kept in the outbox's journal.
package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"relay/outbox"
)

// Entry is a change that an operator made. It holds no secret and no payload.
type Entry struct {
	N     uint64    `json:"-"` // number in the journal
	Time  time.Time `json:"-"`
	Who   string    `json:"who"`             // name of a token, or user id of a process of this machine
	Verb  string    `json:"verb"`            // as on the command line: pause, redeliver, …
	What  string    `json:"what"`            // endpoint, delivery, event or job that was changed
	Count *int64    `json:"count,omitempty"` // of deliveries or events; nil for what is not counted

	AtLeast bool `json:"at_least,omitempty"` // Count is the least that it was

	Before json.RawMessage `json:"before,omitempty"` // what was changed, as far as it is known
	After  json.RawMessage `json:"after,omitempty"`
}

// most bounds Before and After, in bytes, so that an Entry fits into a line.
const most = 6 << 10

// Write adds an entry to the journal. A state that is too long is left out. Errors:
// those of outbox.Journal.Append.
func Write(ctx context.Context, j outbox.Journal, e Entry) error {
	e.What = short(e.What)
	e.Who = short(e.Who)
	e.Before, e.After = bounded(e.Before), bounded(e.After)
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("write audit: %w", err)
	}
	if _, err := j.Append(ctx, body); err != nil {
		return fmt.Errorf("write audit: %w", err)
	}
	return nil
}

// Read returns at most limit entries with numbers below before, 0 for the newest, newest first. Errors: those of
// outbox.Journal.Lines.
func Read(ctx context.Context, j outbox.Journal, before uint64, limit int) ([]Entry, error) {
	lines, err := j.Lines(ctx, before, limit)
	if err != nil {
		return nil, fmt.Errorf("read audit: %w", err)
	}
	all := make([]Entry, len(lines))
	for i, l := range lines {
		if err := json.Unmarshal(l.Body, &all[i]); err != nil {
			all[i].What = "a line that this version of Relay cannot read"
		}
		all[i].N, all[i].Time = l.N, l.At.UTC()
	}
	return all, nil
}

// Search selects entries.
type Search struct {
	Before uint64 // numbers below it; 0 for all
	Limit  int    // entries, 1 to outbox.MaxPage
	Since  time.Time
	Fits   func(*Entry) bool // nil for all
}

// Scanned bounds the entries that one Find reads.
const Scanned = 10_000

// Find returns entries that fit, newest first, and the number below which to go on, 0 after the oldest. It may find fewer than
// there are on its way and still name such a number: it reads at most Scanned entries. Errors: those of outbox.Journal.Lines.
func Find(ctx context.Context, j outbox.Journal, s Search) (found []Entry, next uint64, err error) {
	next = s.Before
	for read := 0; read < Scanned; read += outbox.MaxPage {
		size := outbox.MaxPage
		if s.Fits == nil {
			size = s.Limit
		}
		all, err := Read(ctx, j, next, size)
		if err != nil {
			return nil, 0, err
		}
		for i := range all {
			e := &all[i]
			if e.Time.Before(s.Since) {
				return found, 0, nil
			}
			if next = e.N; s.Fits == nil || s.Fits(e) {
				found = append(found, *e)
			}
			if len(found) == s.Limit && next > 1 {
				return found, next, nil
			}
		}
		if len(all) < size || next <= 1 {
			return found, 0, nil
		}
	}
	return found, next, nil
}

// State is v as JSON, for Before and After.
func State(v any) json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		return nil // the entry says less
	}
	return text
}

func short(s string) string {
	if len(s) > 300 {
		return strings.ToValidUTF8(s[:300], "")
	}
	return s
}

func bounded(text json.RawMessage) json.RawMessage {
	if len(text) > most {
		return json.RawMessage(`"too long to be kept"`)
	}
	return text
}

package outboxtest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"

	"relay/outbox"
)

var _ outbox.Engine = (*Faulty)(nil)

// Faulty passes every call on to a real store, and fails or stops on cue. The
// methods of outbox.Engine are named as they are written there: "Accept",
// "Claim", … ; a name that is none panics, so that a cue cannot be misspelt.
// Broken and Durability are passed on as they are.
type Faulty struct {
	outbox.Engine

	mu   sync.Mutex // guards cues
	cues map[string]*cue
}

// cue is what happens around one method.
type cue struct {
	before func(context.Context) error
	after  func(context.Context, error) error
	err    error
	times  int // calls left that answer err
}

// NewFaulty wraps s. Without a cue it changes nothing.
func NewFaulty(s outbox.Engine) *Faulty {
	return &Faulty{Engine: s, cues: map[string]*cue{}}
}

// Fail makes the next calls of method answer err without reaching the store, as
// many as times says; negative is for ever, 0 ends it.
func (f *Faulty) Fail(method string, err error, times int) {
	f.set(method, func(c *cue) { c.err, c.times = err, times })
}

// Before runs hook ahead of every call of method, with the call's context (the
// background for Close, which has none). It may block. An error that it returns is the
// answer, and the store is not reached. nil takes the hook away.
func (f *Faulty) Before(method string, hook func(context.Context) error) {
	f.set(method, func(c *cue) { c.before = hook })
}

// After runs hook when the store has answered a call of method: the work is
// done. It may block. Its result replaces err as the answer's error;
// with one, the results are withheld, as when an answer is lost on its way. nil takes the hook away.
func (f *Faulty) After(method string, hook func(ctx context.Context, err error) error) {
	f.set(method, func(c *cue) { c.after = hook })
}

func (f *Faulty) set(method string, change func(*cue)) {
	if _, ok := reflect.TypeFor[outbox.Engine]().MethodByName(method); !ok || method == "Broken" || method == "Durability" {
		panic(fmt.Sprintf("outboxtest: outbox.Engine has no method %q that can fail", method))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cues[method] == nil {
		f.cues[method] = &cue{}
	}
	change(f.cues[method])
}

// do makes one call, with what was cued for it around it.
func (f *Faulty) do(ctx context.Context, method string, call func() error) error {
	c := f.take(method)
	if c.before != nil {
		if err := c.before(ctx); err != nil {
			return err
		}
	}
	if c.times != 0 {
		return c.err
	}
	err := call()
	if c.after != nil {
		err = c.after(ctx, err)
	}
	return err
}

// take returns what is cued for a call that begins now.
func (f *Faulty) take(method string) cue {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.cues[method]
	if c == nil {
		return cue{}
	}
	taken := *c
	if c.times > 0 {
		c.times--
	}
	return taken
}

// Accept implements outbox.Store.
func (f *Faulty) Accept(ctx context.Context, b outbox.Batch) (receipts []outbox.Receipt, err error) {
	err = f.do(ctx, "Accept", func() (err error) { receipts, err = f.Engine.Accept(ctx, b); return err })
	if err != nil {
		return nil, err
	}
	return receipts, nil
}

// Claim implements outbox.Store.
func (f *Faulty) Claim(ctx context.Context, r outbox.ClaimRequest) (claims []outbox.Claim, err error) {
	err = f.do(ctx, "Claim", func() (err error) { claims, err = f.Engine.Claim(ctx, r); return err })
	if err != nil {
		return nil, err
	}
	return claims, nil
}

// Settle implements outbox.Store.
func (f *Faulty) Settle(ctx context.Context, c outbox.Claim, s outbox.Settlement) error {
	return f.do(ctx, "Settle", func() error { return f.Engine.Settle(ctx, c, s) })
}

// Release implements outbox.Store.
func (f *Faulty) Release(ctx context.Context, claims ...outbox.Claim) error {
	return f.do(ctx, "Release", func() error { return f.Engine.Release(ctx, claims...) })
}

// Notes implements outbox.Notebook.
func (f *Faulty) Notes(ctx context.Context) (notes []outbox.Note, revision uint64, err error) {
	err = f.do(ctx, "Notes", func() (err error) { notes, revision, err = f.Engine.Notes(ctx); return err })
	if err != nil {
		return nil, 0, err
	}
	return notes, revision, nil
}

// AwaitNotes implements outbox.Notebook.
func (f *Faulty) AwaitNotes(ctx context.Context, after uint64) error {
	return f.do(ctx, "AwaitNotes", func() error { return f.Engine.AwaitNotes(ctx, after) })
}

// SetNote implements outbox.Notebook. Beside an ErrConflict of the store stands the note
// that came first.
func (f *Faulty) SetNote(ctx context.Context, n outbox.Note) (now outbox.Note, err error) {
	err = f.do(ctx, "SetNote", func() (err error) { now, err = f.Engine.SetNote(ctx, n); return err })
	if err != nil && !errors.Is(err, outbox.ErrConflict) {
		return outbox.Note{}, err
	}
	return now, err
}

// Lookup implements outbox.Reader.
func (f *Faulty) Lookup(ctx context.Context, eventID string) (record *outbox.Record, err error) {
	err = f.do(ctx, "Lookup", func() (err error) { record, err = f.Engine.Lookup(ctx, eventID); return err })
	if err != nil {
		return nil, err
	}
	return record, nil
}

// Counts implements outbox.Store.
func (f *Faulty) Counts(ctx context.Context) (counts map[string]outbox.Counts, err error) {
	err = f.do(ctx, "Counts", func() (err error) { counts, err = f.Engine.Counts(ctx); return err })
	if err != nil {
		return nil, err
	}
	return counts, nil
}

// Reap implements outbox.Store.
func (f *Faulty) Reap(ctx context.Context, r outbox.Retention) (removed int, more bool, err error) {
	err = f.do(ctx, "Reap", func() (err error) { removed, more, err = f.Engine.Reap(ctx, r); return err })
	if err != nil {
		return 0, false, err
	}
	return removed, more, nil
}

// Health implements outbox.Store.
func (f *Faulty) Health(ctx context.Context) error {
	return f.do(ctx, "Health", func() error { return f.Engine.Health(ctx) })
}

// Close implements outbox.Store.
func (f *Faulty) Close() error {
	return f.do(context.Background(), "Close", f.Engine.Close)
}

package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"relay/outbox"
	"relay/relay/audit"
	"relay/relay/query"

	"github.com/rs/zerolog"
)

// Why work on a job stops before its end.
var (
	errCancelled = errors.New("the job was cancelled")
	errTaken     = errors.New("another Relay works on the job")
)

const (
	stopTimeout  = 2 * time.Second // for the last write of work that stops
	countTimeout = 5 * time.Second // for the exact number of deliveries
	maxRest      = 30 * time.Second
	maxRestarts  = 3
)

// work is what one Relay does for one job.
type work struct {
	*Jobs
	d     *document
	query *query.Query
	saved time.Time // when the document was written last
	pace  pace
	again bool // some of Batch may be changed already: by who worked on the job before, or by a call without an answer
}

// do works on a job until it has ended, or ctx has. It returns false if there was nothing to do.
func (w *work) do(ctx context.Context, id string) (worked bool) {
	err := w.take(ctx, id)
	if w.d == nil {
		return false
	}
	if err == nil {
		err = w.all(ctx)
	}
	if err == nil || errors.Is(err, errTaken) || errors.Is(err, outbox.ErrClosed) {
		return true // ended, or somebody else's
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	switch {
	case errors.Is(context.Cause(ctx), errCancelled) || errors.Is(err, errCancelled):
		err = w.end(last, Cancelled, "")
	case ctx.Err() != nil: // Relay stops
		w.d.State, w.d.Owner, w.d.Until = Waiting, "", time.Time{}
		if err = w.save(last); errors.Is(err, errCancelled) {
			w.d.Owner = w.owner // as in the outbox
			err = w.end(last, Cancelled, "")
		}
	default:
		err = w.end(last, Broken, err.Error())
	}
	if err != nil && !errors.Is(err, errTaken) {
		w.o.Log.Warn().Err(err).Msg("a job stopped, and its last progress was not stored; it goes on when its lease ends")
	}
	return true
}

// take begins the lease. It returns errTaken, and leaves d nil, if there is nothing to do. With the context's error it is not
// known whether the lease is stored, so it has to be given back.
func (w *work) take(ctx context.Context, id string) error {
	var d *document
	err := w.patiently(ctx, func() (err error) {
		d, err = w.get(ctx, id)
		return err
	})
	if err != nil {
		return errTaken
	}
	if d.State.Over() || w.held(d) {
		return errTaken
	}
	if d.CancelledBy != "" {
		w.d = d
		return errCancelled
	}
	d.State, d.Relay, d.Owner = Running, w.o.Relay(), w.owner
	w.again = len(d.Batch) > 0 || d.Restarts > 0
	first := d.Started.IsZero()
	if first {
		d.Started = w.now()
	}
	w.d = d
	err = w.save(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		if first {
			d.Started = time.Time{}
		}
		return err
	case err != nil:
		w.d = nil
		return errTaken
	}
	if first {
		w.o.Log.Info().Str("job", d.ID).Str("by", d.Who).Msg("job " + string(d.Action) + " begins")
	}
	return nil
}

// all deals with every delivery of the job. It returns nil when the job has ended.
func (w *work) all(ctx context.Context) (err error) {
	w.pace.rate = w.d.Rate
	if w.query, err = parse(w.d.Filter, w.now()); err != nil {
		return fmt.Errorf("the filter cannot be read by this version of Relay: %w", err)
	}
	if err := w.count(ctx); err != nil {
		return err
	}
	for {
		if err := w.act(ctx); err != nil {
			return err
		}
		if w.d.Last {
			late, cancel := outlive(ctx)
			defer cancel()
			return w.end(late, Done, "")
		}
		if err := w.next(ctx); err != nil {
			return err
		}
		if err := w.save(ctx); err != nil {
			return err
		}
	}
}

// count counts what the job will deal with, where its maker had no time to.
func (w *work) count(ctx context.Context) error {
	if w.d.Exact || w.d.Seen() > 0 {
		return nil
	}
	return w.patiently(ctx, func() error {
		f, err := w.query.Filter(ctx, w.o.Surroundings)
		if err != nil {
			return err
		}
		short, cancel := context.WithTimeout(ctx, countTimeout)
		defer cancel()
		n, exact, err := w.o.Outbox.Count(short, f)
		if err == nil {
			w.d.Matched, w.d.Exact = max(n, w.d.Matched), exact
		}
		return err
	})
}

// next makes the next page the batch. Errors: the context's, errTaken, or a final one.
func (w *work) next(ctx context.Context) error {
	var page outbox.Page
	var endpoints map[string]bool
	err := w.patiently(ctx, func() (err error) {
		if w.d.Action == outbox.Redeliver && w.d.To == "" {
			if endpoints, err = w.o.Endpoints(ctx); err != nil {
				return err
			}
		}
		q := outbox.Query{Oldest: true, Limit: w.pace.page(), Cursor: w.d.Cursor}
		if q.Filter, err = w.query.Filter(ctx, w.o.Surroundings); err != nil {
			return err
		}
		page, err = w.o.Outbox.Deliveries(ctx, q)
		return err
	})
	if errors.Is(err, outbox.ErrCursor) && w.d.Restarts < maxRestarts {
		return w.restart()
	}
	if err != nil {
		return err
	}
	w.d.Cursor, w.d.Last = page.Next, page.Next == ""
	for i := range page.Items {
		switch item := &page.Items[i]; {
		case endpoints != nil && !endpoints[item.Endpoint]:
			w.d.skip(SkipEndpoint, 1)
		case w.d.Action != outbox.Erase:
			w.d.Batch = append(w.d.Batch, item.ID)
		case !slices.Contains(w.d.Batch, item.EventID):
			w.d.Batch = append(w.d.Batch, item.EventID)
		}
	}
	return nil
}

// restart begins the job again from its first page, because the outbox does not know its cursor any more: another
// version of Relay may have made it. What was done is not done again.
func (w *work) restart() error {
	w.d.Restarts++
	w.d.Cursor, w.d.Done, w.d.Skipped = "", 0, nil
	w.again = true
	return nil
}

// act deals with the batch. Errors: the context's, errTaken.
func (w *work) act(ctx context.Context) error {
	for len(w.d.Batch) > 0 {
		n := w.pace.take(len(w.d.Batch))
		edited, err := w.edit(ctx, w.d.Batch[:n])
		if err != nil {
			return err
		}
		done := 0
		for i := range edited {
			if errors.Is(edited[i].Err, outbox.ErrFull) {
				edited = edited[:i] // the rest stays for later
				break
			}
			if w.tally(&edited[i]) {
				done++
			}
		}
		full := len(edited) < n
		w.d.Batch = slices.Clone(w.d.Batch[len(edited):])
		w.pace.spent(done)
		if err := w.breathe(ctx, full); err != nil {
			return err
		}
	}
	w.d.Batch = nil
	w.again = w.again && w.d.Restarts > 0
	return nil
}

// outlive is a context that ends stopTimeout after ctx: for a call whose answer counts also when the work is to end.
func outlive(ctx context.Context) (late context.Context, cancel context.CancelFunc) {
	late, end := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		rest(late, stopTimeout)
		end()
	})
	return late, func() {
		stop()
		end()
	}
}

// edit asks for the changes of a part of the batch. It outlives ctx: an answer that nobody awaits leaves changes uncounted.
func (w *work) edit(ctx context.Context, ids []string) (edited []outbox.Edited, err error) {
	changes := make([]outbox.Change, len(ids))
	for i, id := range ids {
		c := outbox.Change{Action: w.d.Action, Delivery: id}
		switch w.d.Action {
		case outbox.Redeliver:
			c.Endpoint, c.Once, c.Unless = w.d.To, once(w.d.ID, id), w.unless()
		case outbox.Discard:
			c.Code = CodeDiscarded
		case outbox.Erase:
			c.Delivery, c.Event, c.Force, c.Code = "", id, w.d.Force, CodeErased
		}
		changes[i] = c
	}
	err = w.patiently(ctx, func() (err error) {
		late, cancel := outlive(ctx)
		defer cancel()
		edited, err = w.o.Outbox.Edit(late, changes)
		w.again = w.again || err != nil // they may be made all the same
		return err
	})
	return edited, err
}

// unless is what makes a redelivery needless. Who asks for deliveries that were delivered means to send events again that
// arrived; each is sent once to an endpoint, also where the filter matches several deliveries of it.
func (w *work) unless() outbox.Unless {
	states := w.d.Filter["state"]
	if len(states) == 0 || slices.Contains(states, string(outbox.Delivered)) || slices.Contains(states, "success") {
		return outbox.UnlessPending
	}
	return outbox.UnlessDelivered
}

// Codes of deliveries that an operator ended.
const (
	CodeDiscarded = "discarded_by_operator"
	CodeErased    = "erased_by_operator"
)

// tally counts what became of a change, and tells whether it was made.
func (w *work) tally(e *outbox.Edited) bool {
	state, isState := errors.AsType[*outbox.StateError](e.Err)
	switch {
	case e.Err == nil && (!e.Repeated || w.d.Action == outbox.Redeliver || w.again):
		w.d.Done++ // a repeated redelivery is one of this job
		return true
	case e.Err == nil:
		w.d.skip(SkipAlready, 1)
	case isState:
		w.d.skip(string(state.State), 1)
	case errors.Is(e.Err, outbox.ErrNotFound):
		w.d.skip(SkipAbsent, 1)
	case errors.Is(e.Err, outbox.ErrErased):
		w.d.skip(SkipErased, 1)
	case errors.Is(e.Err, outbox.ErrClaimed):
		w.d.skip(SkipClaimed, 1)
	case errors.Is(e.Err, outbox.ErrRepeat):
		w.d.skip(SkipRepeat, 1)
	case errors.Is(e.Err, outbox.ErrOnItsWay):
		w.d.skip(SkipOnItsWay, 1)
	case errors.Is(e.Err, outbox.ErrDelivered):
		w.d.skip(SkipSince, 1)
	default:
		w.d.skip(SkipError, 1)
		w.d.Error = e.Err.Error()
	}
	return false
}

const noRoom = "the outbox is full: the job waits for room"

// breathe waits until the pace or a full outbox allows the next change, and keeps the lease meanwhile.
func (w *work) breathe(ctx context.Context, full bool) error {
	until := w.pace.next
	if full {
		until = time.Now().Add(maxRest / 6)
		w.d.Error = noRoom
	} else if w.d.Error == noRoom {
		w.d.Error = ""
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Since(w.saved) >= renew {
			if err := w.save(ctx); err != nil {
				return err
			}
		}
		left := time.Until(until)
		if left <= 0 {
			return nil
		}
		rest(ctx, min(left, renew))
	}
}

// save writes the document, with a fresh lease while the job is ours. It waits out outages. Errors: the context's,
// errTaken, errCancelled.
func (w *work) save(ctx context.Context) error {
	for {
		if w.d.Owner != "" {
			w.d.Until = w.now().Add(lease)
		}
		err := w.patiently(ctx, func() error { return w.put(ctx, w.d) })
		if err == nil {
			w.saved = time.Now()
			return nil
		}
		if !errors.Is(err, outbox.ErrConflict) {
			return err
		}
		stored, err := w.stored(ctx, w.owner)
		if err != nil {
			return err
		}
		fresh := stored.CancelledBy != "" && w.d.CancelledBy == ""
		w.d.revision, w.d.CancelledBy = stored.revision, stored.CancelledBy
		if fresh && !w.d.State.Over() {
			return errCancelled
		}
	}
}

// stored reads the job after a conflict, while it is owner's. Errors: the context's, which says nothing of the job;
// errTaken, also for a job that has ended, which it returns too, or was removed.
func (w *work) stored(ctx context.Context, owner string) (d *document, err error) {
	err = w.patiently(ctx, func() (err error) {
		d, err = w.get(ctx, w.d.ID)
		return err
	})
	switch {
	case ctx.Err() != nil && err != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, errTaken
	case d.State.Over() || d.Owner != owner:
		return d, errTaken
	}
	return d, nil
}

// end ends the job, and writes so to the log and to the audit. With an error the job has not ended, and is as before.
func (w *work) end(ctx context.Context, s State, why string) error {
	before := *w.d
	w.d.end(s, w.now())
	if why != "" {
		w.d.Error = why
	}
	if err := w.finish(ctx, before.Owner); err != nil {
		before.revision, before.CancelledBy = w.d.revision, w.d.CancelledBy
		*w.d = before
		return err
	}
	level := zerolog.InfoLevel
	if s == Broken {
		level = zerolog.ErrorLevel
	}
	failure := func(e *zerolog.Event) {
		if w.d.Error != "" {
			e.Str("error", w.d.Error)
		}
	}
	w.o.Log.WithLevel(level).Str("job", w.d.ID).Func(failure).Str("by", w.d.Who).Str("state", string(s)).Int64("done", w.d.Done).Int64("skipped", w.d.Seen()-w.d.Done).
		Msg("job " + string(w.d.Action) + " ended")
	err := audit.Write(ctx, w.o.Outbox, audit.Entry{
		Who: w.d.Who, Verb: string(w.d.Action), What: "job " + w.d.ID + ": " + string(s), Count: &w.d.Done,
		After: audit.State(struct {
			State   State            `json:"state"`
			Skipped map[string]int64 `json:"skipped,omitempty"`
			Error   string           `json:"error,omitempty"`
		}{s, w.d.Skipped, w.d.Error}),
	})
	if err != nil {
		w.o.Log.Warn().Err(err).Msg("the end of a job is not in the audit")
	}
	return nil
}

// finish stores the end of the job. A cancel that comes at the same time is too late.
func (w *work) finish(ctx context.Context, owner string) error {
	for {
		err := w.patiently(ctx, func() error { return w.put(ctx, w.d) })
		if err == nil || !errors.Is(err, outbox.ErrConflict) {
			return err
		}
		stored, err := w.stored(ctx, owner)
		if stored != nil && stored.State == w.d.State && stored.Ended.Equal(w.d.Ended) && stored.Relay == w.d.Relay {
			return nil // by the call before, whose answer was lost
		}
		if err != nil {
			return err
		}
		w.d.revision, w.d.CancelledBy = stored.revision, stored.CancelledBy
	}
}

// patiently repeats a call until the outbox is there. It returns the context's error, or a final one.
func (w *work) patiently(ctx context.Context, call func() error) error {
	for wait := outboxRest; ; wait = min(2*wait, maxRest) {
		err := call()
		if ctx.Err() != nil && err != nil {
			return ctx.Err()
		}
		if !errors.Is(err, outbox.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		rest(ctx, wait)
	}
}

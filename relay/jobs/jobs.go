// Package jobs works on many deliveries at a time: it redelivers, retries, discards or erases all that a filter matches.
// A job is a document in the outbox, so it survives any end of Relay. One Relay works on it at a time, by a
// lease in that document; when it stops or dies another one goes on where it was.
//
// A redelivery sends an event once to an endpoint, however many deliveries of it match: the oldest of them is repeated. It
// leaves out what was delivered since, or is pending: outbox.Unless.
//
// Each delivery is dealt with at least once and changed once: a batch of ids is stored before the first of
// them is changed, and outbox.Change makes a repeated change once.
package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/rs/zerolog"

	"relay/internal/sorting"
	"relay/outbox"
	"relay/relay/query"
)

const (
	// KeepFor is how long a job that has ended is kept.
	KeepFor = 30 * 24 * time.Hour
	// Keep is how many jobs that have ended are kept.
	Keep = 1000
	// MaxOpen is how many jobs can be open at a time.
	MaxOpen = 100

	// MaxRate and MinRate bound Job.Rate, in deliveries per second.
	MaxRate, MinRate = 100_000, 0.01
)

// Outbox is the part of the outbox that jobs need.
type Outbox interface {
	outbox.History
	outbox.Editor
	outbox.Documents
	outbox.Journal
}

// Options of New.
type Options struct {
	Outbox       Outbox
	Clock        outbox.Clock       // of an outbox that has its own; nil for this process's
	Surroundings query.Surroundings // of filters

	// Endpoints returns the names of all endpoints that take deliveries or will do so again: those of the file, and of the
	// files of other Relays. A job waits while that is not known: outbox.ErrUnavailable.
	Endpoints func(ctx context.Context) (map[string]bool, error)

	Relay func() string  // name of this Relay, which no other one of the outbox has at the same time
	Alone bool           // no other Relay has the outbox open, so a lease of another one is over
	Log   zerolog.Logger // begin and end of jobs
}

// Jobs starts jobs and, while Run does, works on them.
type Jobs struct {
	o     Options
	owner string // of leases
}

// The errors of Start and Cancel.
var (
	ErrTooMany = fmt.Errorf("%d jobs are open", MaxOpen)
	ErrOver    = errors.New("the job has ended")
)

// now is the time by the outbox's clock.
func (j *Jobs) now() time.Time {
	now := time.Now()
	if j.o.Clock != nil {
		now = j.o.Clock.At(now)
	}
	return now.UTC().Truncate(time.Microsecond)
}

// Prepare fixes the filter of a new job: times for durations, and nothing that is accepted from now on. The
// filter that it returns is stored in the job.
func (j *Jobs) Prepare(q *query.Query) (url.Values, error) {
	filter := q.Fixed()
	now := j.now()
	if q.Span.Until.IsZero() || q.Span.Until.After(now) {
		filter.Set("until", now.Format(time.RFC3339Nano))
	}
	_, err := parse(filter, now)
	return filter, err
}

// parse reads a stored filter, whose paths were checked. It may name all endpoints that its maker sees.
func parse(filter url.Values, now time.Time) (*query.Query, error) {
	return query.Parser{Now: now, Stored: true}.Values(filter, query.Bulk)
}

// Filter is what a prepared filter selects now.
func (j *Jobs) Filter(ctx context.Context, filter url.Values) (outbox.Filter, error) {
	q, err := parse(filter, j.now())
	if err != nil {
		return outbox.Filter{}, err
	}
	return q.Filter(ctx, j.o.Surroundings)
}

// Start stores a new job, of which it sets ID, State and Created. Filter is one of Prepare. Errors: ErrTooMany, the
// outbox's.
func (j *Jobs) Start(ctx context.Context, job Job) (Job, error) {
	all, err := j.List(ctx)
	if err != nil {
		return Job{}, err
	}
	open := 0
	for _, other := range all {
		if !other.State.Over() {
			open++
		}
	}
	if open >= MaxOpen {
		return Job{}, ErrTooMany
	}
	job.ID, job.State, job.Created = newID(), Waiting, j.now()
	d := &document{Job: job}
	if err := j.put(ctx, d); err != nil {
		return Job{}, err
	}
	return d.Job, nil
}

// put writes a job on top of the revision that is known.
func (j *Jobs) put(ctx context.Context, d *document) error {
	doc, err := d.stored()
	if err != nil {
		return err
	}
	written, err := j.o.Outbox.PutDocument(ctx, doc)
	if err != nil {
		return fmt.Errorf("store job %s: %w", d.ID, err)
	}
	d.revision = written.Revision
	return nil
}

// List returns all jobs, newest first.
func (j *Jobs) List(ctx context.Context) ([]Job, error) {
	docs, _, err := j.o.Outbox.Documents(ctx, kind, 0)
	if err != nil {
		return nil, fmt.Errorf("list jobs: %w", err)
	}
	var all []Job
	for _, doc := range docs {
		if d, err := read(doc); err == nil { // one of another version is not shown
			all = append(all, d.Job)
		}
	}
	sorting.By(all, func(a, b Job) int { return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(b.ID, a.ID)) })
	return all, nil
}

// Get returns a job. Errors: outbox.ErrNotFound, and the outbox's.
func (j *Jobs) Get(ctx context.Context, id string) (Job, error) {
	d, err := j.get(ctx, id)
	if err != nil {
		return Job{}, err
	}
	return d.Job, nil
}

func (j *Jobs) get(ctx context.Context, id string) (*document, error) {
	if id == "" || len(id) > 64 {
		return nil, outbox.ErrNotFound
	}
	doc, err := j.o.Outbox.Document(ctx, kind, id)
	if err != nil {
		return nil, fmt.Errorf("look up job: %w", err)
	}
	return read(doc)
}

// Cancel ends a job. A Relay that works on it stops after the changes that it is at, within a second or two; until
// then the job stays running. Changes that were made stay. Errors: ErrOver, with the job, if it has ended or was
// cancelled; outbox.ErrNotFound; the outbox's.
func (j *Jobs) Cancel(ctx context.Context, id, who string) (Job, error) {
	for {
		d, err := j.get(ctx, id)
		if err != nil {
			return Job{}, err
		}
		if d.State.Over() || d.CancelledBy != "" {
			return d.Job, ErrOver
		}
		d.CancelledBy = who
		if !j.held(d) {
			d.end(Cancelled, j.now())
		}
		err = j.put(ctx, d)
		if err == nil {
			return d.Job, nil
		}
		if !errors.Is(err, outbox.ErrConflict) {
			return Job{}, err
		}
		// The Relay that works on it was faster.
	}
}

// held tells whether a Relay works on the job. One with the name of this Relay that is not this one has died: no two
// have the same name at a time.
func (j *Jobs) held(d *document) bool {
	if d.Owner == "" || !j.now().Before(d.Until) {
		return false
	}
	return d.Owner == j.owner || !j.o.Alone && d.Relay != j.o.Relay()
}

// end ends a job, which then needs no more than its counts.
func (d *document) end(s State, at time.Time) {
	d.State, d.Ended = s, at
	d.Batch, d.Cursor, d.Last, d.Owner, d.Until = nil, "", false, "", time.Time{}
}

package jobs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"relay/outbox"
)

const (
	// lease is how long a Relay works on a job without telling that it still does.
	lease = 15 * time.Second
	// renew is after how long it tells.
	renew = lease / 3
	// lookEvery is how often leases of other Relays are looked at.
	lookEvery = lease / 2
	// restEvery is how often is looked anyway: for jobs that are old, and for an outbox that lost its data.
	restEvery = time.Minute
	// atOnce is how many jobs a Relay works on at a time.
	atOnce = 8

	outboxRest = time.Second // after an error of the outbox
)

// New prepares Jobs; Run works on them.
func New(o Options) *Jobs {
	return &Jobs{o: o, owner: rand.Text()}
}

// Run works on jobs until ctx ends, or the outbox is closed.
func (j *Jobs) Run(ctx context.Context) {
	r := &running{Jobs: j, known: map[string]*document{}, ours: map[string]context.CancelCauseFunc{}, freed: make(chan struct{}, 1)}
	defer r.work.Wait()
	for ctx.Err() == nil {
		err := r.look(ctx)
		if err == nil {
			err = r.wait(ctx)
		}
		if errors.Is(err, outbox.ErrClosed) {
			return
		}
		if err != nil {
			rest(ctx, outboxRest)
		}
	}
}

// running is what Run knows.
type running struct {
	*Jobs
	known    map[string]*document // all jobs, as last seen
	revision uint64               // of the last document seen
	freed    chan struct{}        // holds a token when a job of ours has stopped

	mu   sync.Mutex
	ours map[string]context.CancelCauseFunc // of jobs that this Relay works on, by id
	work sync.WaitGroup
}

// look reads what has changed, and begins to work on what can be worked on.
func (r *running) look(ctx context.Context) error {
	docs, revision, err := r.o.Outbox.Documents(ctx, kind, r.revision)
	if err != nil {
		return fmt.Errorf("read jobs: %w", err)
	}
	if revision < r.revision { // the outbox has lost its data, and begins again
		clear(r.known)
		r.revision = 0
		return r.look(ctx)
	}
	for _, doc := range docs {
		d, err := read(doc)
		if err != nil { // removed, or of another version
			delete(r.known, doc.Name)
			continue
		}
		d.Batch, d.Filter = nil, nil // needed only by who works on it
		r.known[d.ID] = d
	}
	r.revision = revision
	r.cancelOurs()
	for _, id := range slices.Sorted(maps.Keys(r.known)) { // oldest first
		if d := r.known[id]; !d.State.Over() && !r.held(d) {
			r.begin(ctx, id)
		}
	}
	return r.prune(ctx)
}

// cancelOurs tells the work on cancelled jobs.
func (r *running) cancelOurs() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, cancel := range r.ours {
		if d := r.known[id]; d == nil || d.CancelledBy != "" {
			cancel(errCancelled)
		}
	}
}

// begin works on a job, unless this Relay does so already or has enough of them.
func (r *running) begin(ctx context.Context, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ours[id] != nil || len(r.ours) >= atOnce {
		return
	}
	ctx, cancel := context.WithCancelCause(ctx)
	r.ours[id] = cancel
	r.work.Go(func() {
		defer cancel(nil)
		w := &work{Jobs: r.Jobs}
		worked := w.do(ctx, id)
		r.mu.Lock()
		delete(r.ours, id)
		r.mu.Unlock()
		if !worked {
			return // who has it, or what is wrong with it, is seen by the next look
		}
		select {
		case r.freed <- struct{}{}:
		default:
		}
	})
}

// wait returns when there may be something to do.
func (r *running) wait(ctx context.Context) error {
	d := restEvery
	r.mu.Lock()
	for id, job := range r.known {
		if !job.State.Over() && r.ours[id] == nil {
			d = lookEvery
		}
	}
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- r.o.Outbox.AwaitDocuments(ctx, kind, r.revision) }()
	select {
	case err := <-answer:
		if ctx.Err() != nil {
			return nil // it is time
		}
		return err
	case <-r.freed:
		cancel()
		<-answer
		return nil
	}
}

// prune removes jobs that ended long ago, or many jobs ago.
func (r *running) prune(ctx context.Context) error {
	now := r.now()
	var over []*document
	for _, d := range r.known {
		if d.State.Over() {
			over = append(over, d)
		}
	}
	slices.SortFunc(over, func(a, b *document) int { return b.Ended.Compare(a.Ended) })
	for i, d := range over {
		if i < Keep && now.Sub(d.Ended) < KeepFor {
			continue
		}
		_, err := r.o.Outbox.PutDocument(ctx, outbox.Document{Kind: kind, Name: d.ID, Revision: d.revision})
		if err != nil && !errors.Is(err, outbox.ErrConflict) {
			return fmt.Errorf("remove job %s: %w", d.ID, err)
		}
		delete(r.known, d.ID)
	}
	return nil
}

// rest waits for a duration, or the end of ctx.
func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

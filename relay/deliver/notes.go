package deliver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"relay/outbox"
	"relay/relay/gate"
)

// Limits of what is remembered in the outbox.
const (
	notesAgain   = time.Second // after an outbox that cannot be read now
	maxConflicts = 100         // a fleet writes a note now and then, not all the time
)

// readNotes reads what the outbox remembers, and waits for that as long as it takes. It
// returns false when the Deliverer is to stop.
func (d *Deliverer) readNotes() bool {
	for {
		notes, revision, err := d.o.Source.Notes(d.claiming)
		if err == nil {
			d.learnAll(notes, revision)
			return true
		}
		if d.claiming.Err() != nil || errors.Is(err, outbox.ErrClosed) {
			d.stop(err)
			return false
		}
		select {
		case <-time.After(notesAgain):
		case <-d.claiming.Done():
		}
	}
}

// followNotes hears what others write, until the Deliverer is to stop.
func (d *Deliverer) followNotes() {
	for d.claiming.Err() == nil {
		if err := d.o.Source.AwaitNotes(d.claiming, d.newest()); err != nil {
			if !errors.Is(err, outbox.ErrClosed) && d.claiming.Err() == nil {
				d.stop(fmt.Errorf("wait for notes: %w", err))
			}
			return
		}
		if !d.readNotes() {
			return
		}
	}
}

// newest is the revision of the newest note that is known.
func (d *Deliverer) newest() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.revision
}

// learnAll takes over all notes. Where the newest is older than one that is known, the
// outbox was emptied: then nothing that was known is true any more.
func (d *Deliverer) learnAll(notes []outbox.Note, revision uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	anew := revision < d.revision
	if anew {
		for name, r := range d.runners {
			if !slices.ContainsFunc(notes, func(n outbox.Note) bool { return n.Endpoint == name }) {
				d.heed(r, outbox.Note{}, true)
			}
		}
		clear(d.notes)
	}
	for _, n := range notes {
		d.learn(n, anew)
	}
	d.revision = revision
}

// learn takes over a note that is newer than what is known. The caller holds mu.
func (d *Deliverer) learn(n outbox.Note, anew bool) {
	if n.Revision <= d.notes[n.Endpoint].Revision && !anew {
		return
	}
	d.notes[n.Endpoint] = n
	if r := d.runners[n.Endpoint]; r != nil {
		d.heed(r, n, anew)
	}
}

// hear takes over what the outbox remembers of an endpoint at this moment.
func (d *Deliverer) hear(ctx context.Context, endpoint string) error {
	notes, _, err := d.o.Source.Notes(ctx)
	if err != nil {
		return fmt.Errorf("read the note of endpoint %s: %w", endpoint, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range notes {
		if n.Endpoint == endpoint {
			d.learn(n, false)
		}
	}
	return nil
}

// heed lets the endpoint's gate know. A note that cannot be read is as good as none: a newer
// Relay of the fleet wrote it, and will see to it.
func (d *Deliverer) heed(r *runner, n outbox.Note, anew bool) {
	c, err := gate.ParseCondition(n.Text)
	if err != nil {
		d.o.Log.Warn().Str("endpoint", r.name).Err(err).Msg("what the outbox remembers of an endpoint is not understood")
	}
	r.gate.Heed(c, n.Revision, anew)
}

// remember changes what the outbox remembers of an endpoint, on top of what others wrote.
// change may be called several times; it returns false when there is nothing to write.
func (d *Deliverer) remember(ctx context.Context, endpoint string, change func(*gate.Condition) bool) (written bool, err error) {
	defer func() {
		if err != nil && ctx.Err() == nil {
			d.o.Log.Warn().Str("endpoint", endpoint).Err(err).Msg("the outbox does not know of a change of an endpoint: this Relay heeds it alone")
		}
	}()
	d.mu.Lock()
	n := d.notes[endpoint]
	d.mu.Unlock()
	for range maxConflicts {
		c, err := gate.ParseCondition(n.Text)
		if err != nil {
			return false, err
		}
		if !change(&c) {
			return false, nil
		}
		n, err = d.o.Source.SetNote(ctx, outbox.Note{Endpoint: endpoint, Revision: n.Revision, Text: c.Text()})
		if err != nil && !errors.Is(err, outbox.ErrConflict) {
			return false, fmt.Errorf("write the note of endpoint %s: %w", endpoint, err)
		}
		d.mu.Lock()
		d.learn(n, false)
		d.mu.Unlock()
		if err == nil {
			return true, nil
		}
	}
	return false, fmt.Errorf("write the note of endpoint %s: others change it all the time", endpoint)
}

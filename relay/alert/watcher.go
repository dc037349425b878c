package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver"
)

const (
	interval = 2400 * time.Millisecond // so that an alert fires within 5 s after its time
	lease    = 20 * time.Second        // of the Relay that watches for a fleet
	timeout  = 10 * time.Second        // for one look
	stopMost = 2 * time.Second         // for a write that is under way when Run has to end

	kind     = "alert" // of the document
	document = "state"
)

// Outbox is the part of the outbox that a Watcher needs.
type Outbox interface {
	Counts(ctx context.Context) (map[string]outbox.Counts, error)
	Fill(ctx context.Context) (float64, error)
	outbox.Documents
	outbox.Statistics
}

// Options of a Watcher. Outbox, Alerts, Endpoints, Status and Tell must be given.
type Options struct {
	Outbox       Outbox
	Alerts       func() []*policy.Alert
	Endpoints    func() []string // of the policy that runs
	Status       func() []deliver.Status
	Certificates func() map[string]time.Time // optional
	Tell         func(Transition)            // must not block

	// Relay is this one's name where Relays share the outbox, so that one of them watches for all; nil for
	// an outbox of one Relay.
	Relay func() string
	Clock outbox.Clock // of an outbox that has its own; nil for this process's

	Log zerolog.Logger
}

// Watcher watches what the alerts of the file are about.
type Watcher struct {
	o         Options
	evaluator *Evaluator // nil while another Relay watches
	ends      ends
	revision  uint64 // of the document, as it was last read or written
	written   stored
	unsure    unsure
}

// unsure is a write of which it is not known whether it was made. The next read of the document tells: what is stored is
// found no second time.
type unsure struct {
	body    []byte // nil for none
	changes []Transition
}

// stored is the body of the document.
type stored struct {
	State
	Relay string    `json:"relay,omitempty"` // that watches for the fleet
	Until time.Time `json:"until,omitzero"`  // end of its lease
}

// New makes a Watcher; Run starts it.
func New(o Options) *Watcher { return &Watcher{o: o} }

// Run watches until ctx ends. Without alerts it does nothing.
func (w *Watcher) Run(ctx context.Context) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var said string
	for {
		err := w.look(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			said = ""
		case err.Error() != said:
			said = err.Error()
			w.o.Log.Warn().Err(err).Msg("alerts are not watched now; tried again")
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (w *Watcher) now() time.Time {
	now := time.Now()
	if w.o.Clock != nil {
		now = w.o.Clock.At(now)
	}
	return now.UTC()
}

// look takes a sample and tells what changed. Where Relays share the outbox, it does so while this
// one has the lease.
func (w *Watcher) look(ctx context.Context) error {
	alerts := w.o.Alerts()
	if len(alerts) == 0 && (w.evaluator == nil || len(w.evaluator.Firing()) == 0) {
		w.evaluator, w.ends = nil, ends{}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	mine, err := w.begin(ctx)
	if err != nil || !mine {
		return err
	}
	s, err := w.sample(ctx, alerts)
	if err != nil {
		return err
	}
	changes := w.evaluator.Observe(alerts, s)
	if err := w.keep(ctx, changes); err != nil {
		w.evaluator = nil // what it found is found again, from what is stored
		if errors.Is(err, outbox.ErrConflict) {
			return nil // another Relay watches
		}
		return err
	}
	w.tell(changes)
	return nil
}

func (w *Watcher) tell(changes []Transition) {
	for _, t := range changes {
		w.o.Tell(t)
	}
}

// begin tells whether this Relay watches. It begins to if nobody does.
func (w *Watcher) begin(ctx context.Context) (bool, error) {
	if w.evaluator != nil {
		return true, nil
	}
	held, d, err := read(ctx, w.o.Outbox)
	if err != nil {
		return false, err
	}
	if w.unsure.body != nil && bytes.Equal(w.unsure.body, d.Body) {
		w.tell(w.unsure.changes)
	}
	w.unsure = unsure{}
	if w.o.Relay != nil && held.Relay != "" && held.Relay != w.o.Relay() && w.now().Before(held.Until) {
		return false, nil
	}
	w.evaluator, w.revision, w.written, w.ends = NewEvaluator(held.State), d.Revision, held, ends{}
	if err := w.keep(ctx, nil); err != nil {
		w.evaluator = nil
		if errors.Is(err, outbox.ErrConflict) {
			return false, nil
		}
		return false, err
	}
	return true, nil
}

func read(ctx context.Context, o outbox.Documents) (s stored, d outbox.Document, err error) {
	d, err = o.Document(ctx, kind, document)
	if errors.Is(err, outbox.ErrNotFound) {
		return s, outbox.Document{}, nil
	}
	if err != nil {
		return s, d, fmt.Errorf("read alerts: %w", err)
	}
	if err := json.Unmarshal(d.Body, &s); err != nil {
		s = stored{} // it begins again
	}
	return s, d, nil
}

// keep stores the state if it changed, and the lease if half of it is over.
func (w *Watcher) keep(ctx context.Context, changes []Transition) error {
	now := w.now()
	next := stored{State: w.evaluator.State(now)}
	changed := len(changes) > 0
	if w.o.Relay != nil {
		next.Relay, next.Until = w.o.Relay(), now.Add(lease)
		changed = changed || next.Relay != w.written.Relay || w.written.Until.Sub(now) < lease/2
	}
	if !changed {
		return nil
	}
	body, err := json.Marshal(next)
	if err != nil {
		return err
	}
	d, err := w.put(ctx, body)
	if err != nil {
		if !errors.Is(err, outbox.ErrConflict) {
			w.unsure = unsure{body, changes}
		}
		return fmt.Errorf("write alerts: %w", err)
	}
	w.revision, w.written = d.Revision, next
	return nil
}

// put writes the document. It outlives ctx by up to stopMost: nobody would tell of a change that is stored without an answer.
func (w *Watcher) put(ctx context.Context, body []byte) (outbox.Document, error) {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		timer := time.NewTimer(stopMost)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-late.Done():
		}
	})()
	return w.o.Outbox.PutDocument(late, outbox.Document{Kind: kind, Name: document, Revision: w.revision, Body: body})
}

// Firing returns the alerts that fire, in the whole fleet. Errors: those of the outbox.
func (w *Watcher) Firing(ctx context.Context) ([]Firing, error) {
	s, _, err := read(ctx, w.o.Outbox)
	return s.Firing, err
}

func (w *Watcher) sample(ctx context.Context, alerts []*policy.Alert) (*Sample, error) {
	s := &Sample{At: w.now(), Endpoints: map[string]Endpoint{}}
	counts, err := w.o.Outbox.Counts(ctx)
	if err != nil {
		return nil, err
	}
	if s.Fill, err = w.o.Outbox.Fill(ctx); err != nil {
		return nil, err
	}
	if w.o.Certificates != nil {
		s.Certificates = w.o.Certificates()
	}
	for _, c := range counts {
		s.Accepted += c.Accepted
	}
	if needsEnds(alerts) {
		if err := w.ends.update(ctx, w.o.Outbox, s.At); err != nil {
			return nil, err
		}
	}
	status := map[string]deliver.Status{}
	for _, st := range w.o.Status() {
		status[st.Endpoint] = st
	}
	for _, name := range w.o.Endpoints() {
		e, st, c := w.ends.of(name), status[name], counts[name]
		e.Pending, e.BreakerOpen, e.Disabled = c.Pending, st.Breaker == deliver.BreakerOpen, st.State == deliver.Disabled
		if !c.Oldest.IsZero() {
			e.Oldest = s.At.Sub(c.Oldest)
		}
		s.Endpoints[name] = e
	}
	return s, nil
}

func needsEnds(alerts []*policy.Alert) bool {
	for _, a := range alerts {
		if a.Windowed() || a.On == policy.OnFailingSince {
			return true
		}
	}
	return false
}

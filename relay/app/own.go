package app

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"relay/internal/throttle"
	"relay/outbox"
	"relay/policy"
	"relay/relay/deliver"
)

const (
	ownQueue   = 1024             // own events that wait for the outbox
	ownBatch   = 100              // events in one accept
	ownTimeout = 5 * time.Second  // for one accept
	ownLast    = 2 * time.Second  // for the remaining events, after a stop has ended all attempts
	ownQuiet   = 10 * time.Second // between log lines about lost events
)

// ownEvents accepts Relay's events about itself into its own outbox, so that they go out like any
// other. They are not promised: an event that the outbox does not take, or that comes too fast,
// is lost, counted and logged. They delay no attempt.
type ownEvents struct {
	accept  func(context.Context, outbox.Batch) ([]outbox.Receipt, error)
	policy  func() *policy.Policy
	dropped func(n int) // counts lost events
	log     zerolog.Logger

	queue chan deliver.OwnEvent
	lost  atomic.Int64 // since the last line about it
	lines throttle.Lines
}

func newOwnEvents(accept func(context.Context, outbox.Batch) ([]outbox.Receipt, error), p func() *policy.Policy, dropped func(int), log zerolog.Logger) *ownEvents {
	return &ownEvents{accept: accept, policy: p, dropped: dropped, log: log, queue: make(chan deliver.OwnEvent, ownQueue), lines: throttle.Lines{Every: ownQuiet}}
}

// raise queues an event and never blocks. Failed deliveries of own events raise none, because two
// endpoints for own events that are both down would go on for ever.
func (o *ownEvents) raise(r deliver.OwnEvent) {
	if f, failed := r.Data.(deliver.FailedDelivery); failed && strings.HasPrefix(f.EventType, "relay.") {
		return
	}
	if !slices.ContainsFunc(o.policy().Match(r.Type), func(name string) bool { return name != r.Endpoint }) {
		return
	}
	select {
	case o.queue <- r:
	default:
		o.lose(1)
	}
}

// run accepts queued events until ctx ends, which must be after the last attempt. Then it accepts
// the rest of the queue for up to ownLast.
func (o *ownEvents) run(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case r := <-o.queue:
			// A stop does not cut it short: the outbox is open until run has ended.
			within, cancel := context.WithTimeout(context.WithoutCancel(ctx), ownTimeout)
			o.emit(within, r)
			cancel()
		case <-ctx.Done():
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), ownLast)
	defer cancel()
	for len(o.queue) > 0 {
		o.emit(last, <-o.queue)
	}
}

// emit accepts r and other queued events in one commit.
func (o *ownEvents) emit(ctx context.Context, r deliver.OwnEvent) {
	b := outbox.Batch{}
	for more := true; more; {
		if e, ok := o.entry(r); ok {
			b.Entries = append(b.Entries, e)
		}
		if more = len(b.Entries) < ownBatch && len(o.queue) > 0; more {
			r = <-o.queue
		}
	}
	var err error
	if len(b.Entries) > 0 {
		if _, err = o.accept(ctx, b); err != nil {
			o.lose(len(b.Entries))
		}
	}
	o.tell(err)
}

// entry is the event with the endpoints that want it now, without the one it is about. A reload
// may have changed them since raise.
func (o *ownEvents) entry(r deliver.OwnEvent) (outbox.Entry, bool) {
	data, err := json.Marshal(r.Data)
	if err != nil {
		return outbox.Entry{}, false
	}
	e := outbox.Entry{Event: outbox.Event{
		ID:   "evt_" + uuid.Must(uuid.NewV7()).String(),
		Type: r.Type,
		Time: r.At.UTC().Truncate(time.Microsecond),
		Key:  r.Endpoint,
		Data: data,
		Via:  "relay",
	}}
	names, terms := o.policy().Route(&e.Event)
	for i, name := range names {
		if name == r.Endpoint {
			continue
		}
		e.Endpoints = append(e.Endpoints, name)
		if terms != nil {
			e.Terms = append(e.Terms, terms[i])
		}
	}
	return e, len(e.Endpoints) > 0
}

// lose counts events that the outbox will not have.
func (o *ownEvents) lose(n int) {
	o.dropped(n)
	o.lost.Add(int64(n))
}

// tell logs how many events were lost since its last line, with the error of the last accept.
func (o *ownEvents) tell(err error) {
	if o.lost.Load() == 0 {
		return
	}
	if _, ok := o.lines.Allow(""); ok {
		o.log.Warn().Err(err).Int64("events", o.lost.Swap(0)).Msg("Relay's own events were lost: the outbox did not take them, or they came too fast")
	}
}

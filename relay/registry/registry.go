// Package registry keeps the endpoints that are made at run time. Each is a document of the
// outbox, so all Relays of the outbox have it within a second and it outlives restarts. Its secrets
// are sealed. It is compiled by the decoder of the file, within the bounds of the file's block
// runtime.
//
// An endpoint that cannot be compiled, because the file changed or a key of secrets_key is lost,
// is not in force: its deliveries are held, and Endpoint.Flaws says why.
package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"relay/config"
	"relay/internal/seal"
	"relay/outbox"
	"relay/policy"
)

// Kind is that of the documents.
const Kind = "endpoint"

// Options of a Registry. All but Keys and Now must be given.
type Options struct {
	Store   outbox.Documents
	Keys    *seal.Keys     // of secrets_key; nil for none
	File    *policy.Policy // at the start; see Use
	Changed func()         // Made has another answer now; calls do not overlap
	Log     zerolog.Logger
	Now     func() time.Time // nil: time.Now
}

// Registry is the endpoints made at run time. Its methods may be called at the same time.
type Registry struct {
	o      Options
	loaded atomic.Bool
	turn   chan struct{} // holds one while a change is judged and written
	reads  chan struct{} // holds one while documents are read, so that their answers are taken in order

	mu       sync.Mutex
	file     *policy.Policy
	entries  map[string]*entry
	gone     map[string]uint64 // revisions at which endpoints were deleted, of those that revision does not reach yet
	revision uint64            // of the last document that was read
	asked    uint64            // counts changes of entries
	done     uint64            // those of which Changed knows
	told     *sync.Cond
	ring     chan struct{} // holds one when asked > done
	ended    bool          // Follow has ended
}

// entry is a document with what became of it.
type entry struct {
	revision uint64
	stored   stored
	compiled *policy.Endpoint // nil if there are flaws
	flaws    config.Flaws
}

// stored is the body of a document.
type stored struct {
	Spec    json.RawMessage   `json:"spec"`              // without secrets and, in the outbox, without what is in Sealed
	Sealed  map[string][]byte `json:"sealed,omitempty"`  // members of Spec that may be credentials; once read, those that cannot be opened
	Headers []byte            `json:"headers,omitempty"` // one of them, as it was stored before there was Sealed; only read
	Secrets []storedSecret    `json:"secrets,omitempty"`
	Created time.Time         `json:"created"`
	Updated time.Time         `json:"updated"`
}

// New makes an empty Registry; Load fills it.
func New(o Options) *Registry {
	if o.Now == nil {
		o.Now = time.Now
	}
	r := &Registry{o: o, file: o.File, entries: map[string]*entry{}, gone: map[string]uint64{}, ring: make(chan struct{}, 1), turn: make(chan struct{}, 1), reads: make(chan struct{}, 1)}
	r.told = sync.NewCond(&r.mu)
	return r
}

// Load reads all documents. Errors: those of the store.
func (r *Registry) Load(ctx context.Context) error {
	if err := r.readAfter(ctx, 0); err != nil {
		return fmt.Errorf("read endpoints made at run time: %w", err)
	}
	r.loaded.Store(true)
	return nil
}

// Loaded tells whether Load was ever successful.
func (r *Registry) Loaded() bool { return r.loaded.Load() }

// take puts documents into force. Documents that are older than what is known change nothing.
func (r *Registry) take(all []outbox.Document, revision uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	changed := false
	for _, d := range all {
		old := r.entries[d.Name]
		switch {
		case old != nil && old.revision >= d.Revision, r.gone[d.Name] >= d.Revision:
			continue
		case d.Body == nil:
			delete(r.entries, d.Name)
			r.gone[d.Name] = d.Revision // an answer from before may still be on its way to take
		default:
			e := &entry{revision: d.Revision}
			if json.Unmarshal(d.Body, &e.stored) != nil {
				e.stored = stored{} // of which withSecrets says that it cannot be read
			}
			e.stored.Secrets = e.stored.current(r.o.Now())
			r.unseal(d.Name, &e.stored)
			r.compile(d.Name, e)
			r.entries[d.Name] = e
		}
		changed = true
	}
	r.revision = max(r.revision, revision)
	maps.DeleteFunc(r.gone, func(_ string, at uint64) bool { return at < r.revision })
	if changed {
		r.change()
	}
}

// change notes that entries have changed. The caller holds mu.
func (r *Registry) change() {
	r.asked++
	select {
	case r.ring <- struct{}{}:
	default:
	}
}

// compile makes the endpoint of an entry, and logs why it cannot. The caller holds mu.
func (r *Registry) compile(name string, e *entry) {
	if e.compiled, e.flaws = r.compiled(r.file.Compiler(), name, &e.stored); e.flaws != nil {
		r.o.Log.Error().Str("endpoint", name).Err(e.flaws).Msg("an endpoint made at run time is not in force, and its deliveries are held")
	}
}

func (r *Registry) compiled(c *policy.Compiler, name string, s *stored) (*policy.Endpoint, config.Flaws) {
	spec, err := r.withSecrets(name, s)
	if err != nil {
		return nil, config.Flaws{{Detail: err.Error()}}
	}
	e, err := c.Compile(name, spec)
	if err == nil {
		return e, nil
	}
	if flaws, ok := errors.AsType[config.Flaws](err); ok {
		return nil, flaws
	}
	return nil, config.Flaws{{Detail: err.Error()}}
}

// Prepare compiles all endpoints for another file. Endpoints that are in force and do not fit that file
// are errors, by name; if there are none, use puts the rest into force. It does not call
// Changed.
func (r *Registry) Prepare(file *policy.Policy) (errs map[string]config.Flaws, use func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := make(map[string]*entry, len(r.entries))
	errs = map[string]config.Flaws{}
	for name, e := range r.entries {
		again := *e
		again.compiled, again.flaws = r.compiled(file.Compiler(), name, &e.stored)
		if e.flaws == nil && again.flaws != nil && file.Endpoint(name) == nil {
			errs[name] = again.flaws
		}
		next[name] = &again
	}
	return errs, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.file = file
		for name, e := range r.entries {
			if again := next[name]; again != nil && again.revision == e.revision && len(again.stored.Secrets) == len(e.stored.Secrets) {
				r.entries[name] = again
				continue
			}
			r.compile(name, e) // it was changed meanwhile, or a secret has ended
		}
	}
}

// fixed tells whether the file has an endpoint of this name. The caller holds mu.
func (r *Registry) fixed(name string) bool {
	e := r.file.Endpoint(name)
	return e != nil && !e.Made
}

// Made returns the endpoints that are in force, by name. Those whose name the file has are left
// out.
func (r *Registry) Made() []*policy.Endpoint {
	r.mu.Lock()
	defer r.mu.Unlock()
	made := make([]*policy.Endpoint, 0, len(r.entries))
	for name, e := range r.entries {
		if e.compiled != nil && !r.fixed(name) {
			made = append(made, e.compiled)
		}
	}
	slices.SortFunc(made, func(a, b *policy.Endpoint) int { return cmp.Compare(a.Name, b.Name) })
	return made
}

// Follow calls Changed after changes, those of other Relays too, and ends overlaps of secrets, until
// ctx ends. It returns nil then, or the error of a store that was closed.
func (r *Registry) Follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.setEnded(false)
	defer r.setEnded(true)
	var tell sync.WaitGroup
	defer tell.Wait()
	tell.Go(func() { r.tell(ctx) })
	for {
		var err error
		if r.Loaded() {
			if err = r.o.Store.AwaitDocuments(ctx, Kind, r.known()); err == nil {
				err = r.read(ctx)
			}
		} else if err = r.Load(ctx); err == nil {
			r.o.Changed() // there may be none, of which take says nothing
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, outbox.ErrClosed):
			cancel()
			return err
		case err != nil: // an outage
			r.o.Log.Warn().Err(err).Msg("endpoints made at run time cannot be read now; tried again")
			sleep(ctx, time.Second)
		}
	}
}

func (r *Registry) setEnded(is bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = is
	r.told.Broadcast()
}

func (r *Registry) known() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.revision
}

func (r *Registry) read(ctx context.Context) error { return r.readAfter(ctx, r.known()) }

// readAfter takes the documents that were written after a revision, 0 for all.
func (r *Registry) readAfter(ctx context.Context, revision uint64) error {
	select {
	case r.reads <- struct{}{}:
		defer func() { <-r.reads }()
	case <-ctx.Done():
		return ctx.Err()
	}
	all, revision, err := r.o.Store.Documents(ctx, Kind, revision)
	if err == nil {
		r.take(all, revision)
	}
	return err
}

// tell calls Changed. It rests ten times as long as a call took, so that many changes in a row
// cost a tenth of a processor at most.
func (r *Registry) tell(ctx context.Context) {
	for {
		overlap := time.NewTimer(r.untilNextEnd())
		select {
		case <-ctx.Done():
			overlap.Stop()
			return
		case <-overlap.C:
			r.endOverlaps()
		case <-r.ring:
		}
		overlap.Stop()
		r.mu.Lock()
		asked := r.asked
		r.mu.Unlock()
		began := time.Now()
		r.o.Changed()
		took := time.Since(began)
		r.mu.Lock()
		r.done = asked
		r.told.Broadcast()
		r.mu.Unlock()
		sleep(ctx, min(10*took, time.Second/2))
	}
}

// settleMost bounds the wait of a change for its end: a reload under way and the rest of tell come before it.
const settleMost = 3 * time.Second

// settled waits until changes that were made before are in force in this Relay, for settleMost at
// most, and not after the end of Follow.
func (r *Registry) settled(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleMost)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.told.Broadcast()
	})()
	r.mu.Lock()
	defer r.mu.Unlock()
	for asked := r.asked; !r.ended && r.done < asked && ctx.Err() == nil; {
		r.told.Wait()
	}
}

func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return // a timer that is due at once can crash a bubble of tests under the race detector (Go 1.26)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

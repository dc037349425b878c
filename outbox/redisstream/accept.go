package redisstream

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"time"

	"relay/outbox"
)

// accept is a batch on its way in.
type accept struct {
	ctx      context.Context
	batch    *outbox.Batch
	events   [][]byte // as kept
	weight   int
	receipts []outbox.Receipt
	done     chan error // has room for the one answer
}

// Accept implements outbox.Store. When an answer of Redis is lost the same accept
// is executed again until ctx ends, at most for Options.Patience: the script knows it.
func (s *Store) Accept(ctx context.Context, b outbox.Batch) ([]outbox.Receipt, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.refusal(); err != nil {
		return nil, err
	}
	if err := s.unfit(); err != nil {
		return nil, err
	}
	if len(b.Entries) == 0 {
		return nil, errors.New("accept: the batch has no events")
	}
	within, cancel := context.WithTimeout(ctx, s.o.Patience)
	defer cancel()
	a := &accept{ctx: within, batch: &b, events: make([][]byte, len(b.Entries)), done: make(chan error, 1)}
	for i := range b.Entries {
		e := &b.Entries[i]
		if len(e.Endpoints) > maxFanOut || strings.Contains(e.Event.ID, "|") {
			return nil, fmt.Errorf("accept event %q: it has %d endpoints, at most %d, and no | in its id", e.Event.ID, len(e.Endpoints), maxFanOut)
		}
		for _, t := range e.Terms {
			if t.Mark != nil && len(s.shards) > 1 {
				return nil, fmt.Errorf("accept event %q: what is sent depends on earlier events, and each of the %d shards knows only its own: "+
					"use shards = 1, in an empty outbox, or take such filters out of the policy", e.Event.ID, len(s.shards))
			}
		}
		a.events[i] = encodeEvent(e, nonceOf(e))
		a.weight += max(len(a.events[i]), acceptEntry)
	}
	sh := s.shardFor(&b)
	if lasts, why := sh.outage(); lasts > failFast {
		return nil, why
	}
	sh.accepts.put(a)
	select {
	case err := <-a.done:
		if err != nil {
			return nil, err
		}
		return a.receipts, nil
	case <-within.Done():
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w: redis did not confirm within %s; whether the events are kept is not known", outbox.ErrUnavailable, s.o.Patience)
	case <-s.ended:
		return nil, outbox.ErrClosed
	}
}

// nonceOf tells this accept of an event from another one. An id that was made for the event has
// only one accept, so its nonce follows from it: a repeat is known even in another process.
func nonceOf(e *outbox.Entry) uint64 {
	if e.Fingerprint != (outbox.Fingerprint{}) {
		return mathrand.Uint64()
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(e.Event.ID)) // never fails
	return h.Sum64()
}

// commitAccepts brings accepts to an end, whatever it takes, for as long as
// somebody waits for them.
func (sh *shard) commitAccepts(accepts []*accept) {
	backoff := retryFirst / 5
	for {
		accepts = slices.DeleteFunc(accepts, func(a *accept) bool { return a.ctx.Err() != nil })
		if len(accepts) == 0 {
			return
		}
		was, _ := sh.session()
		err := sh.tryAccepts(accepts)
		if err == nil {
			return
		}
		if lasts, _ := sh.outage(); !retryable(err) && !errors.Is(err, errEpoch) || lasts > failFast {
			answer(accepts, err)
			return
		}
		if errors.Is(err, errEpoch) {
			if err := sh.join(accepts[0].ctx, was); err != nil {
				sh.fell(err)
			}
		}
		if !sh.s.sleep(backoff/2 + mathrand.N(backoff)) {
			answer(accepts, outbox.ErrClosed)
			return
		}
		backoff = min(2*backoff, retryMost)
	}
}

func answer(accepts []*accept, err error) {
	for _, a := range accepts {
		a.done <- err
	}
}

// tryAccepts makes one call. Its error is about the call; a batch's own refusal
// goes to the batch.
func (sh *shard) tryAccepts(accepts []*accept) error {
	joined, err := sh.session()
	if err != nil {
		return err
	}
	if err := sh.crowded(); err != nil {
		answer(accepts, err)
		return nil
	}
	g := &acceptGroup{sh: sh, joined: joined, accepts: accepts, index: map[string]int{}}
	g.gather()
	sh.s.reserve(g)
	defer sh.s.unreserve(g)
	g.build()

	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	c := sh.s.confirming(ctx, sh, joined)
	g.sent = time.Now()
	v, err := sh.eval(ctx, &sh.s.scripts.accept, g.keys, g.args, c.after...)
	if err != nil {
		if errors.Is(err, outbox.ErrFull) {
			answer(accepts, err)
			return nil
		}
		return err
	}
	if err := g.read(v); err != nil {
		return err
	}
	err = c.wait(ctx) // what was written stays: it will be delivered, though its app may hear otherwise
	for _, a := range accepts {
		if a.receipts != nil { // else it has its refusal
			a.done <- err
		}
	}
	sh.s.take(ctx, g)
	return nil
}

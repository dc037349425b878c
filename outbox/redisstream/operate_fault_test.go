package redisstream

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/outbox/redisstream/redistest"
)

// settled accepts an event at endpoint a and settles its delivery, whose id it returns.
func settled(t *testing.T, s *Store, id string, state outbox.State) string {
	t.Helper()
	acceptOne(t, s, id, "a")
	c := claimSome(t, s, "a", 1, time.Minute)[0]
	o := done(c)
	o.State = state
	if state == outbox.Pending {
		o = retry(c, time.Hour)
	}
	if err := s.Settle(t.Context(), c, o); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Counts(t.Context()); err != nil { // it waits for the settlement
		t.Fatal(err)
	}
	return c.ID
}

// edited makes one change.
func edited(t *testing.T, s *Store, c outbox.Change) (outbox.Edited, error) {
	t.Helper()
	all, err := s.Edit(t.Context(), []outbox.Change{c})
	if err != nil {
		return outbox.Edited{}, err
	}
	return all[0], nil
}

// Fault F15: the reply to a change is lost. The caller makes it again, and it is made once.
func TestLostReplyToEdit(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartFaultProxy(t, "unix", server.Socket())
	s := openTest(t, at(proxy.URL()))
	for _, c := range []struct {
		first  string // line of the script
		change outbox.Change
		want   outbox.Counts
	}{
		{"-- Makes a new delivery of an event", outbox.Change{Action: outbox.Redeliver, Delivery: settled(t, s, "e1", outbox.Delivered), Once: "x"},
			outbox.Counts{Accepted: 2, Pending: 1, Delivered: 1}},
		{"-- Makes a delivery due now", outbox.Change{Action: outbox.Retry, Delivery: ""}, outbox.Counts{Accepted: 3, Pending: 1, Delivered: 2}},
		{"-- Ends a pending delivery as discarded", outbox.Change{Action: outbox.Discard, Code: "x"}, outbox.Counts{Accepted: 3, Delivered: 2, Discarded: 1}},
		{"-- Removes data and fields", outbox.Change{Action: outbox.Erase, Event: "e1"}, outbox.Counts{Accepted: 3, Delivered: 2, Discarded: 1}},
	} {
		switch c.change.Action {
		case outbox.Retry:
			deliver(t, s, claimSome(t, s, "a", 1, time.Minute)...) // the redelivery
			c.change.Delivery = settled(t, s, "e2", outbox.Pending)
		case outbox.Discard:
			page, err := s.Deliveries(t.Context(), outbox.Query{Filter: outbox.Filter{Event: "e2"}, Limit: 1})
			if err != nil {
				t.Fatal(err)
			}
			c.change.Delivery = page.Items[0].ID
		}
		proxy.DropReplyTo(c.first)
		if e, err := edited(t, s, c.change); !errors.Is(err, outbox.ErrUnavailable) {
			t.Errorf("%s with a lost reply: %+v, %v, want ErrUnavailable", c.change.Action, e, err)
		}
		e, err := edited(t, s, c.change)
		if err != nil || e.Err != nil || !e.Repeated {
			t.Errorf("%s once more: %+v, %v, want that it was made", c.change.Action, e, err)
		}
		if c.change.Action == outbox.Redeliver && e.Delivery == c.change.Delivery {
			t.Errorf("redeliver answers the old delivery")
		}
		got := countsOf(t, s, "a")
		got.Oldest = time.Time{}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("counts after %s (-want +got):\n%s", c.change.Action, diff)
		}
	}
	if proxy.Dropped() != 4 {
		t.Errorf("%d replies were lost, want 4", proxy.Dropped())
	}
	if err := outboxtest.CheckBooks(t.Context(), s); err != nil {
		t.Error(err)
	}
}

// The same of a recorded attempt, which is made again within the call.
func TestLostReplyToRecord(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartFaultProxy(t, "unix", server.Socket())
	s := openTest(t, at(proxy.URL()))
	server.MustDo(t, "SCRIPT", "LOAD", s.scripts.record.text) // else what is lost is the answer that it is not known
	proxy.DropReplyTo(s.scripts.record.sha)
	id, err := s.Record(t.Context(), outbox.Event{ID: "evt_test", Type: "relay.test", Data: []byte("1")}, "a",
		outbox.Settlement{State: outbox.Failed, Attempt: outbox.Attempt{N: 1, Status: 500}})
	if err != nil || proxy.Dropped() != 1 {
		t.Fatalf("Record: %v with %d replies lost", err, proxy.Dropped())
	}
	r, err := s.LookupDelivery(t.Context(), id)
	if err != nil || len(r.Deliveries) != 1 || !r.Deliveries[0].Manual || r.Deliveries[0].State != outbox.Failed {
		t.Errorf("Lookup: %+v, %v", r, err)
	}
	if n, _, err := s.Count(t.Context(), outbox.Filter{States: []outbox.State{outbox.Failed}}); err != nil || n != 1 {
		t.Errorf("%d failed, %v, want one", n, err)
	}
	if c := countsOf(t, s, "a"); c != (outbox.Counts{}) {
		t.Errorf("counts %+v, want none", c)
	}
	if err := outboxtest.CheckBooks(t.Context(), s); err != nil {
		t.Error(err)
	}
}

// Fault F15: replies are lost while a Relay adds up statistics and makes segments. Each row and each event counts
// once all the same.
func TestLostReplyToChores(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.StartFaultProxy(t, "unix", server.Socket())
	o := at(proxy.URL())
	o.segment = 5
	s := openTest(t, o)
	sh := s.shards[0]
	for _, sc := range []*script{&s.scripts.roll, &s.scripts.seal} {
		server.MustDo(t, "SCRIPT", "LOAD", sc.text)
	}
	for i := range 12 {
		settled(t, s, fmt.Sprintf("evt_%d", i), outbox.Delivered)
		if i%4 == 3 {
			proxy.DropReplyTo(s.scripts.roll.sha)
			proxy.DropReplyTo(s.scripts.seal.sha)
			for range 3 {
				_, _ = sh.roll(t.Context()) // those whose reply is lost answer an error
				_, _ = sh.seal(t.Context())
			}
		}
		if err := outboxtest.CheckBooks(t.Context(), s); err != nil {
			t.Fatalf("after %d events: %v", i+1, err)
		}
	}
	if proxy.Dropped() < 4 {
		t.Errorf("%d replies were lost", proxy.Dropped())
	}
}

// stopover holds a call back before its first script, until it may go on. The context of the call has it.
type stopover struct{ reached, onward chan struct{} }

type stopoverKey struct{}

// stopovers is a hook of the client, for all stopovers.
type stopovers struct{}

func (stopovers) DialHook(next redis.DialHook) redis.DialHook { return next }

func (stopovers) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (stopovers) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if at, ok := ctx.Value(stopoverKey{}).(stopover); ok && cmd.Name() == "evalsha" {
			select {
			case at.reached <- struct{}{}:
				<-at.onward
			default: // it was held back before
			}
		}
		return next(ctx, cmd)
	}
}

// Statistics count all that was settled before they were asked for, though a Relay that read less of it adds that up
// at the same time.
func TestStatisticsBesideChores(t *testing.T) {
	t.Parallel()
	s := openTest(t, at(redistest.Start(t).URL()))
	sh := s.shards[0]
	node, err := sh.node(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	node.AddHook(stopovers{})
	settled(t, s, "evt_1", outbox.Delivered)
	await(t, "the heartbeat has rows added up, and then not for a while", func() bool { return node.XLen(t.Context(), sh.took).Val() == 0 })

	settled(t, s, "evt_2", outbox.Delivered)
	roll, rolled := hold(t, func(ctx context.Context) error { _, err := sh.roll(ctx); return err })
	settled(t, s, "evt_3", outbox.Delivered)
	n := int64(0)
	ask, asked := hold(t, func(ctx context.Context) error {
		rows, err := s.Statistics(ctx, outbox.StatQuery{})
		for _, r := range rows {
			n += r.Delivered
		}
		return err
	})
	for _, call := range []struct {
		at    stopover
		ended chan error
	}{{roll, rolled}, {ask, asked}} {
		close(call.at.onward)
		if err := <-call.ended; err != nil {
			t.Fatal(err)
		}
	}
	if n != 3 {
		t.Errorf("%d deliveries are counted, want 3", n)
	}
}

// hold begins a call and returns when it is held back, or over.
func hold(t *testing.T, call func(context.Context) error) (stopover, chan error) {
	at, ended, over := stopover{make(chan struct{}, 1), make(chan struct{})}, make(chan error, 1), make(chan struct{})
	go func() {
		ended <- call(context.WithValue(t.Context(), stopoverKey{}, at))
		close(over)
	}()
	await(t, "the call is held back or over", func() bool {
		select {
		case <-over:
			return true
		default:
			return len(at.reached) > 0
		}
	})
	return at, ended
}

// An outbox that was emptied has no history. Old cursors are refused, and documents are heard to be gone.
func TestHistoryIsFlushed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := openTest(t, at(server.URL()))
	for i := range 3 {
		settled(t, s, fmt.Sprintf("evt_%d", i), outbox.Delivered)
	}
	d, err := s.PutDocument(t.Context(), outbox.Document{Kind: "job", Name: "j", Body: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	q := outbox.Query{Limit: 1}
	page, err := s.Deliveries(t.Context(), q)
	if err != nil || len(page.Items) != 1 || page.Next == "" {
		t.Fatalf("%+v, %v", page, err)
	}
	server.MustDo(t, "FLUSHALL")
	if err := s.AwaitDocuments(t.Context(), "job", d.Revision); err != nil {
		t.Errorf("AwaitDocuments: %v", err)
	}
	q.Cursor = page.Next
	await(t, "the cursor is refused", func() bool {
		_, err := s.Deliveries(t.Context(), q)
		return errors.Is(err, outbox.ErrCursor)
	})
	if all, revision, err := s.Documents(t.Context(), "job", 0); err != nil || len(all) > 0 || revision != 0 {
		t.Errorf("Documents: %v, revision %d, %v", all, revision, err)
	}
	settled(t, s, "evt_new", outbox.Delivered)
	if err := outboxtest.CheckBooks(t.Context(), s); err != nil {
		t.Error(err)
	}
}

// Beyond maxmemory redeliveries and tests are refused. All else that an operator does goes on.
func TestEditBeyondMaxMemory(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := openTest(t, at(server.URL()))
	old := settled(t, s, "e1", outbox.Failed)
	later := settled(t, s, "e2", outbox.Pending)
	other := settled(t, s, "e3", outbox.Pending)
	fill(t, s, 50)
	setMaxMemory(t, server, usedMemory(t, server)-3<<20)
	if e, err := edited(t, s, outbox.Change{Action: outbox.Redeliver, Delivery: old}); err != nil || !errors.Is(e.Err, outbox.ErrFull) {
		t.Errorf("redeliver: %+v, %v, want ErrFull", e, err)
	}
	if _, err := s.Record(t.Context(), outbox.Event{ID: "evt_test"}, "a", outbox.Settlement{State: outbox.Failed}); !errors.Is(err, outbox.ErrFull) {
		t.Errorf("Record: %v, want ErrFull", err)
	}
	for _, c := range []outbox.Change{
		{Action: outbox.Retry, Delivery: later}, {Action: outbox.Discard, Delivery: other, Code: "x"}, {Action: outbox.Erase, Event: "e1"},
	} {
		if e, err := edited(t, s, c); err != nil || e.Err != nil || e.Repeated {
			t.Errorf("%s: %+v, %v", c.Action, e, err)
		}
	}
	if _, err := s.PutDocument(t.Context(), outbox.Document{Kind: "job", Name: "j", Body: []byte("x")}); err != nil {
		t.Errorf("PutDocument: %v", err)
	}
	if _, err := s.Append(t.Context(), []byte("line")); err != nil {
		t.Errorf("Append: %v", err)
	}
	if err := outboxtest.CheckBooks(t.Context(), s); err != nil {
		t.Error(err)
	}
}

package sqlite

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"relay/outbox"
)

// TestBrokenDiskAmidEdits lets each write and each sync of a commit with changes fail in turn. The store breaks,
// and after opening it again all of the changes are there, or none.
func TestBrokenDiskAmidEdits(t *testing.T) {
	for at, survived := 1, false; !survived; at++ {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			fs := newCrashFS(t)
			o := Options{Dir: t.TempDir(), VFS: t.Name(), ballast: 1}
			s := openTest(t, o)
			mustAccept(t, s, event("evt_over", "a"), event("evt_pending", "b"), event("evt_claimed", "c"))
			over := claimOne(t, s, "a")
			mustSettle(t, s, over, outbox.Delivered)
			pending, claimed := claimOne(t, s, "b"), claimOne(t, s, "c")
			if err := s.Release(t.Context(), pending); err != nil {
				t.Fatal(err)
			}
			n := 0
			fs.fault = func(string, string) error {
				if n++; n == at {
					return syscall.EIO
				}
				return nil
			}
			all, err := s.Edit(t.Context(), []outbox.Change{
				{Action: outbox.Redeliver, Delivery: over.ID, Once: "one"},
				{Action: outbox.Discard, Delivery: pending.ID, Code: "operator"},
				{Action: outbox.Erase, Event: "evt_claimed", Force: true, Code: "operator"},
			})
			if n < at {
				survived = true
				for _, edited := range all {
					if edited.Err != nil {
						t.Errorf("Edit: %+v", edited)
					}
				}
				if err := s.Settle(t.Context(), claimed, outbox.Settlement{State: outbox.Delivered}); !errors.Is(err, outbox.ErrLeaseLost) {
					t.Errorf("Settle of what was erased: %v", err)
				}
				return
			}
			if !errors.Is(err, outbox.ErrUnavailable) {
				t.Fatalf("Edit: %v, want ErrUnavailable", err)
			}
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			fs.fault = nil
			s = openTest(t, o)
			if err := sound(t.Context(), s); err != nil {
				t.Error(err)
			}
			var found []bool
			r, err := s.Lookup(t.Context(), "evt_over")
			found = append(found, err == nil && len(r.Deliveries) == 2)
			r, err = s.LookupDelivery(t.Context(), pending.ID)
			found = append(found, err == nil && r.Deliveries[0].State == outbox.Discarded)
			r, err = s.Lookup(t.Context(), "evt_claimed")
			found = append(found, err == nil && r.Deliveries[0].State == outbox.Discarded, err == nil && len(r.Event.Data) == 0)
			if strings.Count(fmt.Sprint(found), "true")%len(found) != 0 {
				t.Errorf("some of the changes are there: %v", found)
			}
		})
	}
}

// TestFullDiskPutsBack has no room for changes: what they took out of memory can be claimed and settled as before.
func TestFullDiskPutsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newCrashFS(t)
		s := openTest(t, Options{Dir: t.TempDir(), VFS: t.Name(), ballast: 1})
		claimed := hold(t, s, "a")
		mustAccept(t, s, event("evt_0", "a"))
		queued, err := s.Deliveries(t.Context(), outbox.Query{Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		full := func(full bool) {
			fs.mu.Lock()
			defer fs.mu.Unlock()
			fs.fault = func(op, _ string) error {
				if full && op == "write" {
					return syscall.ENOSPC
				}
				return nil
			}
		}
		full(true)
		before, bytes := held(s)
		if _, err := s.Edit(t.Context(), []outbox.Change{
			{Action: outbox.Discard, Delivery: queued.Items[0].ID},
			{Action: outbox.Erase, Event: claimed.EventID, Force: true},
		}); !errors.Is(err, outbox.ErrUnavailable) {
			t.Errorf("Edit on a full disk: %v", err)
		}
		if now, nowBytes := held(s); now != before || nowBytes != bytes {
			t.Errorf("%d deliveries of %d bytes are in memory, were %d of %d", now, nowBytes, before, bytes)
		}
		full(false)
		time.Sleep(10 * time.Second)
		mustSettle(t, s, claimed, outbox.Delivered)
		mustSettle(t, s, claimOne(t, s, "a"), outbox.Delivered)
		if err := sound(t.Context(), s); err != nil {
			t.Error(err)
		}
	})
}

// TestErasedForGood looks for erased data in the bytes of the files.
func TestErasedForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newCrashFS(t)
		s := openTest(t, Options{Dir: t.TempDir(), VFS: t.Name(), ballast: 1})
		const secret = "canary-5f2c"
		for i, size := range []int{1, 2000} { // in a page, and in pages of its own
			e := event(fmt.Sprint("evt_", i), "a")
			e.Event.Data = []byte(strings.Repeat(secret, size))
			e.Event.Fields = []outbox.Field{{Path: "data.name", Value: secret}}
			mustAccept(t, s, e)
			c := claimOne(t, s, "a")
			for _, st := range []outbox.Settlement{{State: outbox.Pending, Due: time.Now()}, {State: outbox.Delivered}} {
				st.Attempt = outbox.Attempt{Request: secret, Head: secret, Body: []byte(secret)}
				if err := s.Settle(t.Context(), c, st); err != nil {
					t.Fatal(err)
				}
				if st.State == outbox.Pending {
					c = claimOne(t, s, "a")
				}
			}
		}
		time.Sleep(10 * time.Second)
		holds := func() bool {
			time.Sleep(10 * time.Second)
			synctest.Wait()
			fs.mu.Lock()
			defer fs.mu.Unlock()
			for _, f := range fs.files {
				if strings.Contains(string(f.seen), secret) {
					return true
				}
			}
			return false
		}
		if !holds() {
			t.Fatal("the files do not hold the data before it is erased")
		}
		if all, err := s.Edit(t.Context(), []outbox.Change{{Action: outbox.Erase, Event: "evt_0"}, {Action: outbox.Erase, Event: "evt_1"}}); err != nil || all[0].Err != nil || all[1].Err != nil {
			t.Fatalf("Edit: %+v, %v", all, err)
		}
		if holds() {
			t.Error("the files hold data that was erased")
		}
	})
}

// TestErasedFromLists erases events of segments on disk and in memory: their fields are in no list.
func TestErasedFromLists(t *testing.T) {
	s := openTest(t, Options{Dir: t.TempDir(), Durability: Relaxed})
	field := outbox.Field{Path: "data.name", Value: "canary"}
	var erase []outbox.Change
	for i := range 9 {
		var list []outbox.Entry
		for j := range 1000 {
			e := event(fmt.Sprintf("evt_%d_%d", i, j), "a")
			if e.Event.Fields = []outbox.Field{{Path: "data.name", Value: fmt.Sprint(j % 50)}}; j == 500 || i == 1 && j%10 == 0 {
				e.Event.Fields[0] = field
				erase = append(erase, outbox.Change{Action: outbox.Erase, Event: e.Event.ID, Force: true})
			}
			list = append(list, e)
		}
		mustAccept(t, s, list...)
	}
	listed := func() (n int) {
		err := s.do(t.Context(), func() error {
			for number := range s.meta.nextDelivery>>segmentBits + 1 {
				var set bitmap
				if known, _, err := s.listed(number, fieldTerm(field), &set); err != nil || !known {
					return fmt.Errorf("segment %d: known %v, %w", number, known, err)
				}
				n += set.count()
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for s.do(t.Context(), func() error { return nil }); ; time.Sleep(time.Millisecond) {
		done := false
		if err := s.do(t.Context(), func() error { done = !s.listDue(); return nil }); err != nil {
			t.Fatal(err)
		}
		if done {
			break
		}
	}
	if n := listed(); n != len(erase) || s.meta.listed != 2 {
		t.Fatalf("%d deliveries are listed, want %d; %d segments are on disk", n, len(erase), s.meta.listed)
	}
	if _, err := s.Edit(t.Context(), erase); err != nil {
		t.Fatal(err)
	}
	if n := listed(); n != 0 {
		t.Errorf("%d deliveries are listed after all were erased", n)
	}
	n, exact, err := s.Count(t.Context(), outbox.Filter{Fields: []outbox.Field{{Path: "data.name", Value: "7"}}})
	if want := int64(9*20 - 0); err != nil || !exact || n != want {
		t.Errorf("Count of another value: %d, %v, %v, want %d", n, exact, err, want)
	}
}

// TestListsAfterOpening lists again what was not on disk, redeliveries among them, and more than memory holds.
func TestListsAfterOpening(t *testing.T) {
	o := Options{Dir: t.TempDir(), Durability: Relaxed}
	s := openTest(t, o)
	mustAccept(t, s, event("evt_over", "a"))
	c := claimOne(t, s, "a")
	mustSettle(t, s, c, outbox.Delivered)
	for i := range 3 {
		var names []string
		for j := range 1000 {
			names = append(names, fmt.Sprint("e", j))
		}
		var list []outbox.Entry
		for j := range 10 {
			list = append(list, event(fmt.Sprintf("evt_%d_%d", i, j), names...))
		}
		mustAccept(t, s, list...)
		if all, err := s.Edit(t.Context(), []outbox.Change{{Action: outbox.Redeliver, Delivery: c.ID}}); err != nil || all[0].Err != nil {
			t.Fatalf("Edit: %+v, %v", all, err)
		}
	}
	check := func() {
		t.Helper()
		manual := true
		for name, f := range map[string]outbox.Filter{"manual": {Manual: &manual}, "endpoint": {Endpoints: []string{"e7"}, Types: []string{"invoice.paid"}}} {
			n, exact, err := s.Count(context.Background(), f)
			if want := map[string]int64{"manual": 3, "endpoint": 30}[name]; err != nil || !exact || n != want {
				t.Errorf("Count by %s: %d, %v, %v, want %d", name, n, exact, err, want)
			}
		}
	}
	check()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, o)
	check()
	for done := false; !done; time.Sleep(time.Millisecond) {
		if err := s.do(t.Context(), func() error { done = !s.listDue(); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if s.meta.listed != 30_004>>segmentBits {
		t.Errorf("%d segments are on disk", s.meta.listed)
	}
	check()
}

// TestCountEndsAmidSlice ends the time of a Count before the owner comes to it: the owner goes on with its work.
func TestCountEndsAmidSlice(t *testing.T) {
	bubble(t, func(t *testing.T, s *Store) {
		mustAccept(t, s, event("evt_0", "a"))
		release := busy(t, s)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if n, exact, err := s.Count(ctx, outbox.Filter{Types: []string{"invoice.paid"}}); n != 0 || exact || err != nil {
			t.Errorf("Count beside a busy owner: %d, %v, %v", n, exact, err)
		}
		release()
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Health(ctx); err != nil {
			t.Errorf("Health after it: %v", err)
		}
	})
}

// TestListsOfTheGone removes the lists of segments whose deliveries were reaped, also behind one that is kept.
func TestListsOfTheGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTest(t, Options{Dir: t.TempDir(), Durability: Relaxed})
		for i := range 30 {
			var list []outbox.Entry
			for j := range 1000 {
				list = append(list, event(fmt.Sprintf("evt_%d_%d", i, j), "a"))
			}
			if i == 8 {
				list = append(list, event("evt_kept", "paused"))
			}
			mustAccept(t, s, list...)
			for n := 0; n < 1000; {
				for _, c := range claimMany(t, s, "a", 1000-n) {
					n++
					if err := s.Settle(t.Context(), c, outbox.Settlement{State: outbox.Delivered}); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		time.Sleep(10 * time.Second)
		segments := func() (all []int64) {
			err := s.do(t.Context(), func() error {
				q, err := s.db.query(`SELECT DISTINCT segment FROM posting`)
				if err != nil {
					return err
				}
				defer q.stmt.Close()
				for q.step() {
					all = append(all, q.stmt.ColumnInt64(0))
				}
				return q.done()
			})
			if err != nil {
				t.Fatal(err)
			}
			return all
		}
		if got := fmt.Sprint(segments()); got != "[0 1 2 3 4 5 6]" {
			t.Errorf("segments with lists: %s", got)
		}
		for more := true; more; {
			var err error
			if _, more, err = s.Reap(t.Context(), outbox.Retention{}); err != nil {
				t.Fatal(err)
			}
		}
		if got := fmt.Sprint(segments()); got != "[2]" {
			t.Errorf("segments with lists after all but one delivery are gone: %s", got)
		}
		page, err := s.Deliveries(t.Context(), outbox.Query{Filter: outbox.Filter{Types: []string{"invoice.paid"}}, Limit: 2})
		if err != nil || len(page.Items) != 1 || page.Items[0].EventID != "evt_kept" || page.Next != "" {
			t.Errorf("Deliveries: %+v, %v", page, err)
		}
	})
}

// A delivery in memory is looked up while it is claimed: the race detector judges.
func TestFindBesideClaim(t *testing.T) {
	s := openTest(t, Options{Dir: t.TempDir(), raise: time.Hour})
	mustAccept(t, s, event("evt_1", "a"))
	claimOne(t, s, "a") // from now on what comes stays in memory
	mustAccept(t, s, event("evt_2", "a"))
	claimed := make(chan error, 1)
	err := s.do(t.Context(), func() error {
		go func() {
			_, err := s.Claim(t.Context(), outbox.ClaimRequest{Endpoint: "a", Max: 1, Lease: time.Hour})
			claimed <- err
		}()
		for {
			if d, err := s.find(2); err != nil || d == nil || d.mem == nil || d.row {
				return fmt.Errorf("found is %+v: %w", d, err)
			}
			select {
			case err := <-claimed:
				return err
			default:
			}
		}
	})
	if err != nil {
		t.Error(err)
	}
}

package backlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/internal/testkit"
	"relay/outbox"
	"relay/outbox/outboxtest"
)

// store is an outbox whose counts a test sets.
type store struct {
	*outboxtest.Mem
	counts map[string]outbox.Counts
	puts   int
	before func() // of the next write; nil for nothing
	err    error
}

func newStore() *store {
	return &store{Mem: outboxtest.NewMem(outboxtest.MemOptions{}), counts: map[string]outbox.Counts{}}
}

func (s *store) Counts(context.Context) (map[string]outbox.Counts, error) { return s.counts, s.err }

func (s *store) PutDocument(ctx context.Context, d outbox.Document) (outbox.Document, error) {
	if before := s.before; before != nil {
		s.before = nil
		before()
	}
	s.puts++
	return s.Mem.PutDocument(ctx, d)
}

// wait sets how many deliveries of endpoints are not over, by pairs of name and number.
func (s *store) wait(pairs ...any) {
	s.counts = map[string]outbox.Counts{"idle": {Delivered: 7}}
	for i := 0; i < len(pairs); i += 2 {
		s.counts[pairs[i].(string)] = outbox.Counts{Pending: int64(pairs[i+1].(int))}
	}
}

// hours are the hours of the last days as text: "15 12" is 12 in the hour from 15:00.
func hours(t *testing.T, h *History, endpoint string) (all []string) {
	t.Helper()
	got, err := h.Hours(t.Context(), outbox.Span{Since: time.Now().Add(-100 * 24 * time.Hour)}, endpoint)
	testkit.Must(t, err)
	for _, x := range got {
		all = append(all, fmt.Sprintf("%s %d", x.Start.Format("02 15"), x.Most))
	}
	return all
}

func wantHours(t *testing.T, h *History, endpoint string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, hours(t, h, endpoint)); diff != "" {
		t.Errorf("of %q -want +got:\n%s", endpoint, diff)
	}
}

// An hour has the most of its looks, of all together and of each endpoint; one without a backlog is known, one without a look is not.
func TestHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it is 2000-01-01 00:00 UTC
		s := newStore()
		h := New(s, nil)
		look := func(pairs ...any) {
			t.Helper()
			s.wait(pairs...)
			testkit.Must(t, h.Look(t.Context()))
			time.Sleep(Every)
		}
		look("a", 3, "b", 1)
		look("a", 1, "b", 9)
		look()
		time.Sleep(time.Hour)
		look()
		time.Sleep(2 * time.Hour)
		look("a", 100)
		wantHours(t, h, "", "01 00 10", "01 01 0", "01 03 100")
		wantHours(t, h, "a", "01 00 3", "01 01 0", "01 03 100")
		wantHours(t, h, "b", "01 00 9", "01 01 0", "01 03 0")
		s.wait("b", 5) // now, and before the next look
		wantHours(t, h, "b", "01 00 9", "01 01 0", "01 03 5")
		time.Sleep(time.Hour)
		wantHours(t, h, "b", "01 00 9", "01 01 0", "01 03 0", "01 04 5")
		wantHours(t, New(s, nil), "a", "01 00 3", "01 01 0", "01 03 100", "01 04 0") // another Relay, or after a restart
		got, err := h.Hours(t.Context(), outbox.Span{Since: time.Date(2000, 1, 1, 1, 0, 0, 0, time.UTC), Until: time.Date(2000, 1, 1, 3, 0, 0, 0, time.UTC)}, "")
		if err != nil || len(got) != 1 || got[0].Start.Hour() != 1 {
			t.Errorf("from 1:00 to 3:00: %v (%v)", got, err)
		}
	})
}

// What stays the same is written once an hour, and what grows slowly not at each look.
func TestFewWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		h := New(s, nil)
		for i := range 120 {
			s.wait("a", 100+i%4)
			testkit.Must(t, h.Look(t.Context()))
			time.Sleep(Every)
		}
		if s.puts != 2 {
			t.Errorf("two hours of the same backlog are %d writes", s.puts)
		}
		s.wait("a", 200)
		testkit.Must(t, h.Look(t.Context()))
		s.wait("a", 200, "b", 1)
		testkit.Must(t, h.Look(t.Context()))
		if s.puts != 4 {
			t.Errorf("a rise and a new endpoint are %d writes", s.puts-2)
		}
	})
}

// Relays of a fleet write one document: none undoes what another one saw, and what one wrote the others do not write again.
func TestFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		one, two := New(s, nil), New(s, nil)
		s.wait("a", 5)
		testkit.Must(t, one.Look(t.Context()))
		testkit.Must(t, two.Look(t.Context()))
		if s.puts != 1 {
			t.Errorf("%d writes of two Relays that saw the same", s.puts)
		}
		s.wait("a", 50)
		s.before = func() { // between the read and the write of the first one
			s.wait("a", 500)
			testkit.Must(t, two.Look(t.Context()))
		}
		testkit.Must(t, one.Look(t.Context()))
		s.wait()
		wantHours(t, one, "a", "01 00 500")
		testkit.Must(t, one.Look(t.Context()))
		wantHours(t, one, "a", "01 00 500")
	})
}

// Of many endpoints those with the largest backlogs are kept; of the others the hour is not known.
func TestManyEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		h := New(s, nil)
		var pairs []any
		for i := range 3 * MaxEndpoints {
			pairs = append(pairs, fmt.Sprintf("e%03d", i), 10+i)
		}
		s.wait(pairs...)
		testkit.Must(t, h.Look(t.Context()))
		testkit.Must(t, h.Look(t.Context()))
		if s.puts != 1 {
			t.Errorf("what has no room is written again: %d writes", s.puts)
		}
		time.Sleep(time.Hour)
		s.wait()
		wantHours(t, h, "e299", "01 00 309", "01 01 0")
		wantHours(t, h, "e200", "01 00 210", "01 01 0")
		wantHours(t, h, "e199", "01 01 0")
		wantHours(t, h, "", "01 00 47850", "01 01 0")
	})
}

// The document of a day with as many endpoints as there can be, with the longest names, can be written.
func TestLargestDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		h := New(s, nil)
		var pairs []any
		for i := range 2 * MaxEndpoints {
			pairs = append(pairs, fmt.Sprintf("%064d", i), 1_000_000+i)
		}
		s.wait(pairs...)
		for range 24 {
			testkit.Must(t, h.Look(t.Context()))
			time.Sleep(time.Hour)
		}
		d, err := s.Document(t.Context(), kind, "2000-01-01")
		if testkit.Must(t, err); len(d.Body) > outbox.MaxDocument {
			t.Errorf("it has %d bytes", len(d.Body))
		}
	})
}

// A day that another version wrote, with fewer endpoints, or that cannot be read, is written on.
func TestForeignDay(t *testing.T) {
	for name, c := range map[string]struct{ body, before, after string }{
		"fewer endpoints": {`{"hours":[{"all":90,"endpoints":{"a":3},"cut":true}]}`, "01 00 90", "01 00 90"},
		"no day":          {`[]`, "01 00 0", "01 00 12"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStore()
				_, err := s.PutDocument(t.Context(), outbox.Document{Kind: kind, Name: "2000-01-01", Body: []byte(c.body)})
				testkit.Must(t, err)
				h := New(s, nil)
				wantHours(t, h, "", c.before)
				s.wait("a", 4, "b", 8)
				testkit.Must(t, h.Look(t.Context()))
				s.wait()
				wantHours(t, h, "", c.after)
				wantHours(t, h, "b", "01 00 8")
			})
		})
	}
}

// Days are removed after KeptFor.
func TestForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		h := New(s, nil)
		for range 40 {
			s.wait("a", 1)
			testkit.Must(t, h.Look(t.Context()))
			time.Sleep(24 * time.Hour)
		}
		all, _, err := s.Documents(t.Context(), kind, 0)
		testkit.Must(t, err)
		var days []string
		for _, d := range all {
			days = append(days, d.Name)
		}
		if slices.Sort(days); len(days) != 32 || days[0] != "2000-01-09" {
			t.Errorf("%d days are kept: %v", len(days), days)
		}
		if got := hours(t, h, "a"); len(got) != 31+1 { // and the present one
			t.Errorf("%d hours are told: %v", len(got), got)
		}
	})
}

// An outbox that does not answer is an error; nothing is taken for a backlog of zero.
func TestOutboxFails(t *testing.T) {
	s := newStore()
	s.err = outbox.ErrUnavailable
	h := New(s, nil)
	if err := h.Look(t.Context()); !errors.Is(err, outbox.ErrUnavailable) {
		t.Errorf("a look: %v", err)
	}
	if _, err := h.Hours(t.Context(), outbox.Span{}, ""); !errors.Is(err, outbox.ErrUnavailable) {
		t.Errorf("hours: %v", err)
	}
	s.err = nil
	testkit.Must(t, s.Close())
	if err := h.Look(t.Context()); !errors.Is(err, outbox.ErrClosed) {
		t.Errorf("a look at a closed outbox: %v", err)
	}
}

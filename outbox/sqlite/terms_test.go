package sqlite

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relay/outbox"
)

// marked is an event whose one delivery is made, and then failed, as a mark lets it.
func marked(id string, m outbox.Mark) outbox.Entry {
	e := event(id, "a")
	e.Terms = []outbox.Term{{Code: "body_error", Mark: &m}}
	return e
}

func wantMade(t *testing.T, s *Store, deliveries int, e outbox.Entry) {
	t.Helper()
	if r, err := s.Accept(t.Context(), batch(e)); err != nil || r[0].Deliveries != deliveries {
		t.Errorf("Accept with mark %+v: %+v, %v, want %d deliveries", *e.Terms[0].Mark, r, err, deliveries)
	}
}

// wantMarks counts the rows of marks.
func wantMarks(t *testing.T, s *Store, want int64) {
	t.Helper()
	err := s.do(t.Context(), func() error {
		got, err := s.db.number(`SELECT count(*) FROM mark`)
		if got != want {
			t.Errorf("%d marks are kept, want %d", got, want)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// reapAll reaps until there is no more to do, and returns in how many slices.
func reapAll(t *testing.T, s *Store) (slices int) {
	t.Helper()
	for more := true; more; slices++ {
		var err error
		if _, more, err = s.Reap(t.Context(), outbox.Retention{}); err != nil {
			t.Fatal(err)
		}
	}
	return slices
}

func TestMarksAreReapedInSlices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTest(t, Options{Dir: t.TempDir()})
		list := []outbox.Entry{marked("evt_lasting", outbox.Mark{Key: "lasting", Level: 1, For: time.Hour})}
		for i := range 2*reapSlice + 1 {
			list = append(list, marked(fmt.Sprint("evt_", i), outbox.Mark{Key: fmt.Sprint("k", i), Level: 1, For: time.Minute}))
		}
		mustAccept(t, s, list...)
		time.Sleep(time.Minute - time.Second)
		reapAll(t, s) // the events go
		wantMarks(t, s, 2*reapSlice+2)
		time.Sleep(time.Second)
		if n := reapAll(t, s); n != 3 {
			t.Errorf("%d marks took %d slices, want 3", 2*reapSlice+1, n)
		}
		wantMarks(t, s, 1)
	})
}

// Marks that last can fill an outbox without events. When they end there is room again.
func TestMarksTakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openTest(t, Options{Dir: t.TempDir(), MaxSize: 2 << 20, Durability: Relaxed})
		accept := func(n int) error {
			list := make([]outbox.Entry, reapSlice)
			for i := range list {
				key := fmt.Sprintf("%d/%d/%s", n, i, strings.Repeat("k", 110))
				list[i] = marked(fmt.Sprintf("evt_%d_%d", n, i), outbox.Mark{Key: key, Level: 1, For: time.Hour})
			}
			_, err := s.Accept(t.Context(), batch(list...))
			time.Sleep(time.Millisecond)
			reapAll(t, s)
			return err
		}
		n, err := 0, error(nil)
		for n < 100 && err == nil {
			err = accept(n)
			n++
		}
		if !errors.Is(err, outbox.ErrFull) || n < 10 {
			t.Fatalf("Accept of batch %d: %v, want ErrFull after some more than ten", n, err)
		}
		time.Sleep(time.Hour)
		reapAll(t, s)
		wantMarks(t, s, 0)
		if err := accept(n); err != nil {
			t.Errorf("Accept after the marks ended: %v", err)
		}
	})
}

// An id that is taken shows only when its batch is half written.
func TestClashChangesNoMark(t *testing.T) {
	s := openTest(t, Options{Dir: t.TempDir()})
	mustAccept(t, s, event("evt_0", "a"))
	first := marked("evt_1", outbox.Mark{Key: "k", Level: 1, For: time.Hour})
	if _, err := s.Accept(t.Context(), batch(first, event("evt_0", "a"))); !errors.Is(err, outbox.ErrConflict) {
		t.Fatalf("Accept: %v, want ErrConflict", err)
	}
	wantMarks(t, s, 0)
	wantMade(t, s, 1, first)
}

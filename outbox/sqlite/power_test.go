package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"relay/outbox"
)

// TestPowerCut cuts the power at a random write or sync amid load, ten times for
// each seed. What was acknowledged must be there whole (promises P1 and P2), the file
// must be sound and the counts must add up, while retention removes or does not. Faults F4 (all that
// was not synced is gone) and F5 (some sectors of it survive). At level relaxed the same must
// lose something, or the test proves nothing.
func TestPowerCut(t *testing.T) {
	for _, test := range []struct {
		name       string
		durability string
		survival   float64
		seeds      uint64
		reaps      bool
	}{
		{"F4 unsynced data is dropped", Fsync, 0, 20, false},
		{"F5 some sectors survive", Fsync, 0.5, 20, false},
		{"F4 with retention", Fsync, 0, 20, true},
		{"F5 with retention", Fsync, 0.5, 20, true},
		{"control", Relaxed, 0, 2, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := &powerTest{T: t, fs: newCrashFS(t), dir: t.TempDir(), durability: test.durability, reaps: test.reaps}
			p.close(p.nearlyFull(p.open()))
			newborn := p.fs.clone()
			acknowledged, lost := 0, 0
			for seed := range test.seeds {
				p.fs.files = newborn.clone().files
				p.seed, p.random = seed, rand.New(rand.NewPCG(seed, 0))
				p.tried, p.acknowledged = map[string]outbox.Entry{}, map[string]bool{}
				p.note = outbox.Note{Endpoint: "a"}
				p.operated = operated{erasing: map[string]bool{}, made: map[string]bool{}}
				s := p.open()
				for range 10 {
					p.load(s, test.survival)
					s = p.open()
					gone := p.check(s)
					lost, acknowledged = lost+gone, acknowledged+gone
				}
				p.close(s)
				acknowledged += len(p.acknowledged)
			}
			t.Logf("%d events acknowledged, %d lost", acknowledged, lost)
			t.Logf("%d times there were lists of a segment, %d times statistics of an hour", p.listed, p.rolled)
			if acknowledged == 0 || test.durability == Fsync && (p.listed == 0 || p.rolled == 0) {
				t.Error("no event was acknowledged, listed or counted")
			}
			if (test.durability == Fsync) != (lost == 0) {
				t.Errorf("%d of %d acknowledged events were lost at level %s", lost, acknowledged, test.durability)
			}
		})
	}
}

// TestPowerCutAtBirth cuts the power at each write and sync while the outbox is
// made: it is made again.
func TestPowerCutAtBirth(t *testing.T) {
	p := &powerTest{T: t, fs: newCrashFS(t), dir: t.TempDir(), durability: Fsync}
	for _, survival := range []float64{0, 0.5} {
		for at, born := 1, false; !born; at++ {
			p.seed, p.random = uint64(at), rand.New(rand.NewPCG(uint64(at), 0))
			clear(p.fs.files)
			p.cutAt(at, survival)
			s, err := Open(t.Context(), p.options())
			if born = err == nil; born {
				_ = s.Close()
			}
			p.close(p.open())
		}
	}
}

// TestPowerCutAmidRecovery kills a process with deliveries in memory, some of them over, and cuts the
// power at each write and sync while the outbox is opened again: all are found.
func TestPowerCutAmidRecovery(t *testing.T) {
	p := &powerTest{T: t, fs: newCrashFS(t), dir: t.TempDir(), durability: Fsync}
	s := p.open()
	mustAccept(t, s, event("evt_0", "a", "b", "c"))
	claim := claimOne(t, s, "a")
	mustSettle(t, s, claimOne(t, s, "b"), outbox.Pending)
	mustSettle(t, s, claimOne(t, s, "c"), outbox.Delivered)
	mustSettle(t, s, claim, outbox.Failed)
	for i := range 5 { // which syncs what was settled, too
		mustAccept(t, s, event(fmt.Sprint("evt_1", i), "a", "b"))
	}
	killed := p.fs.clone()
	p.close(s)
	for _, survival := range []float64{0, 0.5} {
		for at, opened := 1, false; !opened; at++ {
			p.seed, p.random = uint64(at), rand.New(rand.NewPCG(uint64(at), 0))
			p.fs.files = killed.clone().files
			p.cutAt(at, survival)
			s, err := Open(t.Context(), p.options())
			if opened = err == nil; opened {
				_ = s.Close()
			}
			p.fs.mu.Lock()
			p.fs.fault = nil
			p.fs.mu.Unlock()
			s = p.open()
			if err := sound(t.Context(), s); err != nil {
				t.Fatalf("cut %d: %v", at, err)
			}
			if a, b := len(claimMany(t, s, "a", 9)), len(claimMany(t, s, "b", 9)); a != 5 || b != 5 {
				t.Errorf("cut %d: %d and %d deliveries are due, want 5 each", at, a, b)
			}
			p.close(s)
		}
	}
}

// powerTest is one seed.
type powerTest struct {
	*testing.T
	fs         *crashFS
	dir        string
	durability string
	reaps      bool // retention removes what is over; endpoint c gets nothing
	random     *rand.Rand
	seed       uint64

	mu           sync.Mutex
	events       int
	tried        map[string]outbox.Entry
	acknowledged map[string]bool
	listed       int         // how often there were lists on disk,
	rolled       int         // and rows of stat, after a cut
	note         outbox.Note // the last one acknowledged; the numbers in it rise
	operated     operated
}

// operated is what an operator did.
type operated struct {
	document outbox.Document // the last one acknowledged; the numbers in it rise
	line     uint64          // and the last line of the journal
	made     map[string]bool // redeliveries and tests that were acknowledged, by id
	erasing  map[string]bool // events that were to be erased
}

// nearlyFull makes the numbers of deliveries such that a segment is complete soon.
func (p *powerTest) nearlyFull(s *Store) *Store {
	p.Helper()
	err := s.do(p.Context(), func() error {
		s.meta.nextDelivery = segmentSize - 150
		return s.db.transact("FULL", func() error { return s.db.writeMeta(s.meta, s.clock.State()) })
	})
	if err != nil {
		p.Fatal(err)
	}
	return s
}

// operate does what operators do, until the power is cut.
func (p *powerTest) operate(s *Store, random *rand.Rand) {
	o := &p.operated
	for {
		d := o.document
		d.Kind, d.Name, d.Body = "job", "one", fmt.Append(nil, d.Revision+1)
		d, err := s.PutDocument(p.Context(), d)
		if err != nil {
			return
		}
		o.document = d
		line, err := s.Append(p.Context(), fmt.Append(nil, d.Revision))
		if err != nil {
			return
		}
		o.line = line.N
		page, err := s.Deliveries(p.Context(), outbox.Query{Limit: 20})
		if err != nil {
			return
		}
		var changes []outbox.Change
		for _, item := range page.Items {
			c := outbox.Change{Action: outbox.Redeliver, Delivery: item.ID, Once: "once " + item.ID, Endpoint: "b"}
			switch random.IntN(6) {
			case 0:
				c = outbox.Change{Action: outbox.Discard, Delivery: item.ID, Code: "operator"}
			case 1:
				c = outbox.Change{Action: outbox.Retry, Delivery: item.ID}
			case 2:
				o.erasing[item.EventID] = true
				c = outbox.Change{Action: outbox.Erase, Event: item.EventID, Force: random.IntN(2) == 0}
			}
			changes = append(changes, c)
		}
		all, err := s.Edit(p.Context(), changes)
		if err != nil {
			return
		}
		for i, edited := range all {
			if changes[i].Action == outbox.Redeliver && edited.Err == nil {
				o.made[edited.Delivery] = true
			}
		}
		if p.reaps {
			continue // else tests were removed that are counted
		}
		test := outbox.Entry{Event: outbox.Event{ID: fmt.Sprint("evt_test", line.N), Type: "t"}, Endpoints: []string{"a"}}
		p.mu.Lock()
		p.tried[test.Event.ID] = test
		p.mu.Unlock()
		id, err := s.Record(p.Context(), test.Event, "a", outbox.Settlement{State: outbox.Delivered})
		if err != nil {
			return
		}
		o.made[id] = true
	}
}

// checkOperated looks at what the cut has left of it.
func (p *powerTest) checkOperated(s *Store) {
	p.Helper()
	o := &p.operated
	d, err := s.Document(p.Context(), "job", "one")
	if err != nil && !errors.Is(err, outbox.ErrNotFound) {
		p.Fatalf("seed %d: %v", p.seed, err)
	}
	lines, err := s.Lines(p.Context(), 0, 1)
	if err != nil {
		p.Fatalf("seed %d: %v", p.seed, err)
	}
	last := append(lines, outbox.Line{})[0].N
	if p.durability == Fsync && (d.Revision < o.document.Revision || last < o.line) {
		p.Errorf("seed %d: document %d or line %d is lost", p.seed, o.document.Revision, o.line)
	}
	if d.Revision > 0 && string(d.Body) != fmt.Sprint(d.Revision) {
		p.Errorf("seed %d: document %d says %q", p.seed, d.Revision, d.Body)
	}
	o.document, o.line = d, last
	for id := range o.made {
		_, err := s.LookupDelivery(p.Context(), id)
		if err != nil && (!errors.Is(err, outbox.ErrNotFound) || p.durability == Fsync && !p.reaps) {
			p.Errorf("seed %d: delivery %s that an operator made: %v", p.seed, id, err)
		}
		if err != nil {
			delete(o.made, id)
		}
	}
}

func (p *powerTest) options() Options {
	return Options{Dir: p.dir, Durability: p.durability, VFS: p.Name(), ballast: 1, raise: time.Millisecond, roll: time.Millisecond}
}

func (p *powerTest) open() *Store {
	p.Helper()
	s, err := Open(p.Context(), p.options())
	if err != nil {
		p.Fatalf("seed %d: %v", p.seed, err)
	}
	return s
}

func (p *powerTest) close(s *Store) {
	p.Helper()
	if err := s.Close(); err != nil {
		p.Fatalf("seed %d: %v", p.seed, err)
	}
}

// cutAt cuts the power at the n-th write or sync from now.
func (p *powerTest) cutAt(n int, survival float64) {
	p.fs.mu.Lock()
	defer p.fs.mu.Unlock()
	p.fs.fault = func(string, string) error {
		if n--; n > 0 {
			return nil
		}
		p.fs.cut(p.random, survival)
		return errDead
	}
}

// load works on the store until the power is cut.
func (p *powerTest) load(s *Store, survival float64) {
	p.cutAt(1+p.random.IntN(120), survival)
	var wg sync.WaitGroup
	for producer := range 4 {
		random := rand.New(rand.NewPCG(p.seed, uint64(producer)))
		wg.Go(func() {
			for p.accept(s, random) == nil {
				if random.IntN(10) == 0 { // so that checkpoints are cut too
					_ = s.do(p.Context(), func() error { return s.db.checkpoint(sqlite3.CHECKPOINT_PASSIVE) })
				}
			}
		})
	}
	wg.Go(func() {
		for n := p.note; ; p.note = n {
			var err error
			n.Text = fmt.Append(nil, n.Revision+1)
			if n, err = s.SetNote(p.Context(), n); err != nil {
				return
			}
		}
	})
	operating := rand.New(rand.NewPCG(p.seed, 99))
	wg.Go(func() { p.operate(s, operating) })
	working := []string{"a", "b", "c"}
	if p.reaps {
		working = working[:2]
		wg.Go(func() {
			for {
				if _, _, err := s.Reap(p.Context(), outbox.Retention{Delivered: time.Millisecond}); err != nil {
					return
				}
			}
		})
	}
	for _, name := range working {
		random := rand.New(rand.NewPCG(p.seed, uint64(name[0])))
		wg.Go(func() {
			for p.deliver(s, name, random) == nil {
			}
		})
	}
	wg.Wait()
	_ = s.Close() // the disk it writes to is gone
}

// accept accepts one batch and writes it down when it was acknowledged.
func (p *powerTest) accept(s *Store, random *rand.Rand) error {
	var b outbox.Batch
	p.mu.Lock()
	for range 1 + random.IntN(3) {
		p.events++
		id := fmt.Sprintf("evt_%d", p.events)
		data := strings.Repeat(id, random.IntN(300)) // up to some pages
		e := outbox.Entry{Event: outbox.Event{ID: id, Type: "t", Data: []byte(data)}, Endpoints: []string{"a", "b", "c"}[:1+random.IntN(3)]}
		p.tried[id] = e
		b.Entries = append(b.Entries, e)
	}
	p.mu.Unlock()
	if _, err := s.Accept(p.Context(), b); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range b.Entries {
		p.acknowledged[e.Event.ID] = true
	}
	return nil
}

// deliver claims and settles.
func (p *powerTest) deliver(s *Store, endpoint string, random *rand.Rand) error {
	claims, err := s.Claim(p.Context(), outbox.ClaimRequest{Endpoint: endpoint, Max: 3, Lease: time.Minute})
	if err != nil {
		return err
	}
	for _, c := range claims {
		st := outbox.Settlement{State: states[random.IntN(len(states))], Due: time.Now().Add(time.Minute)}
		if err := s.Settle(p.Context(), c, st); err != nil {
			return err
		}
	}
	return nil
}

// check looks at what the cut has left and returns how many events are lost.
func (p *powerTest) check(s *Store) (lost int) {
	check := sound
	if p.reaps {
		check = soundReaped
	}
	if err := check(p.Context(), s); err != nil {
		p.Errorf("seed %d: %v", p.seed, err)
	}
	kept := map[string]bool{}
	err := s.do(p.Context(), func() error {
		q, err := s.db.query(`SELECT id, data, targets, erased FROM event WHERE kept < 2`)
		if err != nil {
			return err
		}
		defer q.stmt.Close()
		for q.step() {
			id := q.stmt.ColumnText(0)
			e := p.tried[id]
			if data := e.Event.Data; q.stmt.ColumnInt64(3) > 0 {
				if e.Event.Data = nil; !p.operated.erasing[id] {
					e.Event.Data = data
				}
			}
			if string(q.stmt.ColumnRawBlob(1)) != string(e.Event.Data) || countTargets(q.stmt.ColumnRawBlob(2)) != len(e.Endpoints) {
				p.Errorf("seed %d: event %s has other data or other deliveries than it had", p.seed, id)
			}
			kept[id] = true
		}
		return q.done()
	})
	if err != nil {
		p.Fatalf("seed %d: %v", p.seed, err)
	}
	p.checkOperated(s)
	if s.meta.listed > 0 {
		p.listed++
	}
	if err := s.do(p.Context(), func() error {
		n, err := s.db.number(`SELECT EXISTS (SELECT 1 FROM stat)`)
		p.rolled += int(n)
		return err
	}); err != nil {
		p.Fatalf("seed %d: %v", p.seed, err)
	}
	notes, revision, err := s.Notes(p.Context())
	if err != nil {
		p.Fatalf("seed %d: %v", p.seed, err)
	}
	if revision < p.note.Revision && p.durability == Fsync {
		p.Errorf("seed %d: note %d is lost", p.seed, p.note.Revision)
	}
	for _, n := range notes {
		if n.Revision != revision || string(n.Text) != fmt.Sprint(revision) {
			p.Errorf("seed %d: the last note has revision %d, one says %q at %d", p.seed, revision, n.Text, n.Revision)
		}
		p.note = n
	}
	if len(notes) == 0 {
		p.note = outbox.Note{Endpoint: "a"}
	}
	for id := range p.acknowledged {
		if !kept[id] {
			if p.reaps && len(p.tried[id].Endpoints) < 3 {
				continue // all of its deliveries may be over
			}
			lost++
			delete(p.acknowledged, id) // counted once
		}
	}
	return lost
}

// sound checks the file, of which nothing was reaped: its counts against its rows, and each delivery
// for being in one place.
func sound(ctx context.Context, s *Store) error {
	return errors.Join(soundRows(ctx, s, `SELECT 'ends at ' || name FROM endpoint e WHERE (delivered, failed, discarded) <>
		(SELECT count(*) FILTER (WHERE state = 1), count(*) FILTER (WHERE state = 2), count(*) FILTER (WHERE state = 3) FROM done WHERE endpoint = e.id)`),
		s.do(ctx, func() error { return errors.Join(soundDeliveries(s, 1), soundStatistics(s)) }), soundLists(ctx, s))
}

// soundReaped checks a file of which something was reaped.
func soundReaped(ctx context.Context, s *Store) error {
	return errors.Join(soundRows(ctx, s, `SELECT 'ok'`), s.do(ctx, func() error { return errors.Join(soundDeliveries(s, 0), soundStatistics(s)) }), soundLists(ctx, s))
}

// soundStatistics compares statistics with the counts of the same commits. Tests are in the counts alone.
func soundStatistics(s *Store) error {
	ends := map[int64]counts{}
	add := func(id int64, row *outbox.Stat) {
		ends[id] = ends[id].plus(counts{0, row.Delivered, row.Failed, row.Discarded})
	}
	for key, row := range s.stats.open {
		add(key.endpoint, row)
	}
	for key, row := range pick(s.stats.frozen, s.stats.order, s.stats.written) {
		add(key.endpoint, row)
	}
	for _, sql := range []string{
		`SELECT endpoint, delivered, failed, discarded FROM stat`,
		`SELECT d.endpoint, state = 1, state = 2, state = 3 FROM done d JOIN manual m ON m.seq = d.seq WHERE m.origin = 0`,
	} {
		q, err := s.db.query(sql)
		if err != nil {
			return err
		}
		defer q.stmt.Close()
		for q.step() {
			add(q.stmt.ColumnInt64(0), &outbox.Stat{Delivered: q.stmt.ColumnInt64(1), Failed: q.stmt.ColumnInt64(2), Discarded: q.stmt.ColumnInt64(3)})
		}
		if err := q.done(); err != nil {
			return err
		}
	}
	var fault error
	for _, ep := range s.known {
		if got := ends[ep.id]; got != (counts{0, ep.counts.delivered, ep.counts.failed, ep.counts.discarded}) {
			fault = errors.Join(fault, fmt.Errorf("statistics of %s are %+v, counted are %+v", ep.name, got, ep.counts))
		}
	}
	return fault
}

// soundLists compares the pages of filters with what matches of all.
func soundLists(ctx context.Context, s *Store) error {
	pages := func(f outbox.Filter) (all []outbox.Item, err error) {
		for q := (outbox.Query{Filter: f, Limit: outbox.MaxPage}); ; {
			page, err := s.Deliveries(ctx, q)
			if all = append(all, page.Items...); err != nil || page.Next == "" {
				return all, err
			}
			q.Cursor = page.Next
		}
	}
	all, fault := pages(outbox.Filter{})
	filters := []outbox.Filter{{States: []outbox.State{outbox.Pending}}, {States: []outbox.State{outbox.Failed, outbox.Discarded}}, {Types: []string{"t"}}}
	for _, endpoint := range []string{"a", "b", "c"} {
		filters = append(filters, outbox.Filter{Endpoints: []string{endpoint}})
	}
	for _, f := range filters {
		var want []string
		for _, item := range all {
			if f.Match(&item) {
				want = append(want, item.ID)
			}
		}
		items, err := pages(f)
		var got []string
		for _, item := range items {
			got = append(got, item.ID)
		}
		n, exact, wrong := s.Count(ctx, f)
		fault = errors.Join(fault, err, wrong)
		if !slices.Equal(got, want) || n != int64(len(want)) || !exact {
			fault = errors.Join(fault, fmt.Errorf("filter %+v finds %d deliveries and counts %d, %d match", f, len(got), n, len(want)))
		}
	}
	return fault
}

// soundRows runs checks whose rows are faults or ok.
func soundRows(ctx context.Context, s *Store, more string) (fault error) {
	err := s.do(ctx, func() error {
		q, err := s.db.query(more + ` UNION ALL SELECT integrity_check FROM pragma_integrity_check
			UNION ALL SELECT 'attempts of ' || seq FROM pending p WHERE attempts <> (SELECT count(*) FROM attempt WHERE id BETWEEN p.seq << 16 AND p.seq << 16 | 65535)
				OR attempts > 0 AND due > (SELECT due FROM attempt WHERE id = p.seq << 16 | p.attempts)
			UNION ALL SELECT 'attempts of ' || seq FROM done d WHERE attempts - (started IS NOT NULL) <> (SELECT count(*) FROM attempt WHERE id BETWEEN d.seq << 16 AND d.seq << 16 | 65535)
			UNION ALL SELECT 'attempt of nothing ' || id FROM attempt a WHERE (id >> 16) NOT IN (SELECT seq FROM pending UNION ALL SELECT seq FROM done)`)
		if err != nil {
			return err
		}
		defer q.stmt.Close()
		for q.step() {
			if v := q.stmt.ColumnText(0); v != "ok" {
				fault = errors.Join(fault, errors.New(v))
			}
		}
		return q.done()
	})
	return errors.Join(fault, err)
}

// soundDeliveries finds each target of each event in one place: it is over, or pending with a row, or above
// the watermark and in memory without one. What was reaped is in least = 0 places, below the
// watermark. The owner calls it, and breaks on what is wrong.
func soundDeliveries(s *Store, least int) error {
	places, pending := map[string]int{}, map[int64]int64{}
	count := func(sql string, pending map[int64]int64) error {
		q, err := s.db.query(sql)
		if err != nil {
			return err
		}
		defer q.stmt.Close()
		for q.step() {
			places[fmt.Sprint(q.stmt.ColumnInt64(0), q.stmt.ColumnInt64(1), q.stmt.ColumnInt64(2))]++
			pending[q.stmt.ColumnInt64(2)]++
		}
		return q.done()
	}
	fault := errors.Join(count(`SELECT seq, event, endpoint FROM done`, map[int64]int64{}), count(`SELECT seq, event, endpoint FROM pending`, pending))
	for _, e := range s.bare {
		if e.event != nil {
			places[fmt.Sprint(e.seq, e.number, e.endpoint.id)]++
			pending[e.endpoint.id]++
			if e.number <= s.meta.watermark {
				fault = errors.Join(fault, fmt.Errorf("delivery %d without a row is of event %d, the watermark is %d", e.seq, e.number, s.meta.watermark))
			}
		}
	}
	q, err := s.db.query(`SELECT seq, first, targets FROM event WHERE kept < 2`)
	if err != nil {
		return err
	}
	defer q.stmt.Close()
	for q.step() {
		number := q.stmt.ColumnInt64(0)
		targets, err := s.endpointsOf(q.stmt.ColumnRawBlob(2))
		fault = errors.Join(fault, err)
		for i, ep := range targets {
			where := fmt.Sprint(q.stmt.ColumnInt64(1)+int64(i), number, ep.id)
			if n := places[where]; n > 1 || n < least || n < 1 && number > s.meta.watermark {
				fault = errors.Join(fault, fmt.Errorf("delivery, event, endpoint %s: found in %d places", where, n))
			}
			delete(places, where)
		}
	}
	m, err := s.db.query(`SELECT seq, event, endpoint FROM manual`)
	if err != nil {
		return err
	}
	defer m.stmt.Close()
	for m.step() {
		where := fmt.Sprint(m.stmt.ColumnInt64(0), m.stmt.ColumnInt64(1), m.stmt.ColumnInt64(2))
		if n := places[where]; n > 1 {
			fault = errors.Join(fault, fmt.Errorf("redelivery, event, endpoint %s: found in %d places", where, n))
		}
		delete(places, where)
	}
	fault = errors.Join(fault, m.done())
	if len(places) > 0 {
		fault = errors.Join(fault, fmt.Errorf("deliveries of no event: %v", places))
	}
	for _, ep := range s.known {
		if n := pending[ep.id]; n != ep.counts.pending() {
			fault = errors.Join(fault, fmt.Errorf("%d deliveries of %s are pending, counted are %+v", n, ep.name, ep.counts))
		}
	}
	return errors.Join(fault, q.done())
}

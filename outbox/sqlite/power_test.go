package sqlite

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"relay/outbox"
)

// TestPowerCut cuts the power at a random write or sync amid load, ten times for
// each seed; RELAY_SOAK_ROUNDS sets the number of seeds. What was acknowledged must be there whole (promises P1 and P2), the file
// must be sound and the counts must add up, while retention removes or does not. Faults F4 (all that
// was not synced is gone) and F5 (some sectors of it survive). At level relaxed the same must
// lose something, or the test proves nothing.
func TestPowerCut(t *testing.T) {
	seeds := uint64(rounds(t, 8))
	parts, listed, rolled, tested := 0, 0, 0, 0
	for _, test := range []struct {
		name       string
		durability string
		survival   float64
		seeds      uint64
		reaps      bool
	}{
		{"F4 unsynced data is dropped", Fsync, 0, seeds, false},
		{"F5 some sectors survive", Fsync, 0.5, seeds, false},
		{"F4 with retention", Fsync, 0, seeds, true},
		{"F5 with retention", Fsync, 0.5, seeds, true},
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
				p.operated = operated{erasing: map[string]bool{}, ending: map[string]bool{}, made: map[string]bool{}}
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
			t.Logf("%d times there were lists of a segment, %d times statistics of an hour, %d times tests of endpoints", p.listed, p.rolled, p.tested)
			if acknowledged == 0 {
				t.Error("no event was acknowledged")
			}
			if test.durability == Fsync {
				parts, listed, rolled, tested = parts+1, listed+p.listed, rolled+p.rolled, tested+p.tested
			}
			if (test.durability == Fsync) != (lost == 0) {
				t.Errorf("%d of %d acknowledged events were lost at level %s", lost, acknowledged, test.durability)
			}
		})
	}
	// Whether a cut comes after such a commit is chance, and in one part of the test there may be none.
	if parts == 4 && (listed == 0 || rolled == 0 || tested == 0) {
		t.Errorf("%d times there were lists of a segment, %d times statistics of an hour, %d times tests of endpoints", listed, rolled, tested)
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
	rolled       int         // and rows of stat,
	tested       int         // and tests of endpoints, after a cut
	note         outbox.Note // the last one acknowledged; the numbers in it rise
	operated     operated
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
	wg.Go(func() { p.write(s) })
	wg.Go(func() { p.edit(s, rand.New(rand.NewPCG(p.seed, 99))) })
	wg.Go(func() { p.test(s, rand.New(rand.NewPCG(p.seed, 98))) })
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
		rolled, err := s.db.number(`SELECT EXISTS (SELECT 1 FROM stat)`)
		if err != nil {
			return err
		}
		tested, err := s.db.number(`SELECT EXISTS (SELECT 1 FROM manual WHERE origin = 0)`)
		p.rolled, p.tested = p.rolled+int(rolled), p.tested+int(tested)
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
			if p.reaps && (len(p.tried[id].Endpoints) < 3 || p.operated.ending[id]) {
				continue // all of its deliveries may be over
			}
			lost++
			delete(p.acknowledged, id) // counted once
		}
	}
	return lost
}

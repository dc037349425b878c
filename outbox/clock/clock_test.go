package clock

import (
	"testing"
	"testing/synctest"
	"time"
)

// set is a wall clock that is set by a test.
type set struct{ by time.Duration }

func (s *set) wall() time.Time { return time.Now().Round(0).Add(s.by) }

func want[T comparable](t *testing.T, what string, want, got T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// TestSteps sets the wall clock forward and back: the outbox's time goes on as it did, and
// what it shows follows the wall clock.
func TestSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var s set
		c := New(State{}, s.wall)
		want(t, "a new outbox's time", begin.UnixMicro(), c.Now())
		due := c.Of(begin.Add(10 * time.Minute))
		want(t, "due", begin.Add(10*time.Minute).UnixMicro(), due)
		for i, by := range []time.Duration{24 * time.Hour, -24 * time.Hour, 5 * time.Second, 0} {
			before := s.by
			s.by = by
			time.Sleep(time.Second)
			now := begin.Add(time.Duration(i+1) * time.Second)
			want(t, "Now", now.UnixMicro(), c.Now())
			want(t, "Step", by-before, c.Step())
			want(t, "Step, told before", 0, c.Step())
			want(t, "Wall", begin.Add(by+10*time.Minute).UTC(), c.Wall(due))
			want(t, "the moment is away", begin.Add(10*time.Minute).Sub(now), time.Until(c.Moment(due)))
			want(t, "Of a moment by the wall clock", due, c.Of(s.wall().Add(time.Until(c.Moment(due)))))
		}
	})
}

// TestMonotonic: a moment with a monotonic reading is as far away as that says. Time is real
// here: in a bubble there are no such readings.
func TestMonotonic(t *testing.T) {
	var s set
	c := New(State{}, s.wall)
	later := time.Now().Add(10 * time.Minute)
	due := c.Of(later)
	for _, by := range []time.Duration{24 * time.Hour, -24 * time.Hour, 0} {
		s.by = by
		if got := c.Of(later); got != due {
			t.Errorf("with the wall clock set by %v the moment is %d, want %d", by, got, due)
		}
		if off := c.Moment(due).Sub(later); off < 0 || off > time.Microsecond {
			t.Errorf("with the wall clock set by %v Moment is %v later", by, off)
		}
	}
}

// TestNoise: two clocks that are read one after the other differ a little. That is no step,
// and never adds up to one.
func TestNoise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s set
		c := New(State{}, s.wall)
		for i := range 100 {
			s.by = noise * time.Duration(i%3-1) * 9 / 10
			c.Now()
		}
		want(t, "Step", 0, c.Step())
		want(t, "shift", 0, c.State().Shift)
	})
}

// TestRestart closes an outbox and opens it with the wall clock set: time that has passed counts,
// and no clock turns the outbox's time back.
func TestRestart(t *testing.T) {
	for _, test := range []struct {
		name         string
		before, then time.Duration // by which the wall clock is set
		passed       time.Duration // while it was closed
		want         time.Duration // by which its time went on
	}{
		{"clock is right", 0, 0, time.Hour, time.Hour},
		{"clock stays wrong", -24 * time.Hour, -24 * time.Hour, time.Hour, time.Hour},
		{"set back meanwhile", 0, -24 * time.Hour, time.Hour, 0},
		{"set back a little", 0, -time.Minute, time.Hour, 59 * time.Minute},
		{"set forward meanwhile", 0, 24 * time.Hour, time.Hour, 25 * time.Hour}, // nobody can tell
		{"a machine without a clock", 0, -50 * 365 * 24 * time.Hour, time.Hour, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				var s set
				c := New(State{}, s.wall)
				s.by = test.before
				time.Sleep(time.Hour)
				last := c.State()
				want(t, "seen", begin.Add(time.Hour).UnixMicro(), last.Seen)
				time.Sleep(test.passed)
				s.by = test.then
				c = New(last, s.wall)
				want(t, "Now", begin.Add(time.Hour+test.want).UnixMicro(), c.Now())
				want(t, "Wall at the present time", s.wall().UTC(), c.Wall(c.Now()))
				s.by = 0 // it is set right
				time.Sleep(time.Minute)
				want(t, "Now, set right", begin.Add(time.Hour+test.want+time.Minute).UnixMicro(), c.Now())
				want(t, "Wall at the present time, set right", time.Now().UTC(), c.Wall(c.Now()))
			})
		})
	}
}

// TestFarMoments asks for moments that no Duration reaches.
func TestFarMoments(t *testing.T) {
	c := New(State{}, nil)
	for _, micros := range []int64{0, 1<<63 - 1, -1 << 63} {
		away := time.Until(c.Moment(micros))
		if (micros > c.Now()) != (away > 0) {
			t.Errorf("Moment(%d) is %v away", micros, away)
		}
	}
}

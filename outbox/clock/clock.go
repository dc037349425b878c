// Package clock tells an outbox's own time. All that an outbox waits for or counts from, due
// times, retention, the window of ids, is in that time, and setting the machine's clock moves
// none of it. ../DESIGN.md says what is of which clock.
package clock

import (
	"sync"
	"time"
)

// noise is how far the wall clock may be from where it should be before that counts as a
// step. Two readings of the machine's clocks are never of the same moment.
const noise = 500 * time.Millisecond

// State is what must outlive the process. The zero value is that of a new outbox.
type State struct {
	Seen  int64 // microseconds: the outbox's time was that far at least
	Shift int64 // microseconds that the wall clock is ahead of it
}

// Clock is the time of an outbox, in microseconds since 1970. It begins with the wall clock and
// goes on with the monotonic one, so that it never goes back and never jumps while the
// process lives. Its methods may be called at the same time.
type Clock struct {
	wall func() time.Time // nil but in tests

	mu    sync.Mutex
	start time.Time     // with a monotonic reading
	base  int64         // nanoseconds: the outbox's time at start
	shift int64         // nanoseconds that the wall clock is ahead of the outbox's time
	step  time.Duration // of the wall clock, since Step was called
	slept time.Duration // by the machine, before start or counted in base
}

// New continues an outbox's time. Across a restart only the wall clock tells how much time
// has passed; when it stands before the time that was seen, none has.
// wall stands in for the machine's wall clock in tests, and is nil else.
func New(last State, wall func() time.Time) *Clock {
	c := &Clock{wall: wall, start: time.Now(), slept: slept()}
	now := c.wallAt(c.start)
	c.base = max(now-last.Shift*1000, last.Seen*1000)
	c.shift = now - c.base
	return c
}

// Now is the outbox's time.
func (c *Clock) Now() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.read() / 1000
}

// Of is the outbox's time of a moment to come, rounded up so that it is not early. With a
// monotonic reading the moment is as far away as that says, whatever the wall clock does
// in between; without one it is of the wall clock as it stands now.
func (c *Clock) Of(t time.Time) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read()
	nanos := t.UnixNano() - c.shift
	if t != t.Round(0) { // which takes the reading away
		nanos = c.at(t)
	}
	return (nanos + 999) / 1000
}

// Wall is a time of the outbox by the wall clock as it stands now, for people.
func (c *Clock) Wall(micros int64) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read()
	return time.UnixMicro(micros + c.shift/1000).UTC()
}

// farthest is what Moment reaches: a Duration holds no more than some 292 years.
const farthest = 200 * 365 * 24 * time.Hour

// Moment is a time of the outbox with a monotonic reading, to wait for and to compare with
// time.Now.
func (c *Clock) Moment(micros int64) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	base, most := c.base/1000, farthest.Microseconds()
	away := min(max(micros, base-most), base+most) - base
	return c.start.Add(time.Duration(away)*time.Microsecond - time.Duration(c.base%1000))
}

// State is what must outlive the process.
func (c *Clock) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.read()
	return State{Seen: now / 1000, Shift: c.shift / 1000}
}

// Step returns by how much the wall clock was set since Step was called before, 0 when it
// was not.
func (c *Clock) Step() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read()
	step := c.step
	c.step = 0
	return step
}

// at is the outbox's time of a monotonic reading, in nanoseconds. The caller holds mu.
func (c *Clock) at(t time.Time) int64 { return c.base + int64(t.Sub(c.start)) }

// wallAt is the wall clock's part of a reading, in nanoseconds.
func (c *Clock) wallAt(now time.Time) int64 {
	if c.wall != nil {
		now = c.wall()
	}
	return now.UnixNano()
}

// read returns the outbox's time in nanoseconds, and notices what the wall clock does: a
// step moves only the shift, and time that the machine slept through has passed. The caller holds mu.
func (c *Clock) read() int64 {
	nanos, drift := c.look()
	if drift.Abs() < noise {
		return nanos
	}
	if nanos, drift = c.look(); drift.Abs() < noise { // between the two halves of one reading the process did not run
		return nanos
	}
	if all := slept(); all-c.slept >= noise {
		c.base += int64(all - c.slept)
		c.slept = all
		if nanos, drift = c.look(); drift.Abs() < noise {
			return nanos
		}
	}
	c.shift += int64(drift)
	c.step += drift
	return nanos
}

// look reads both clocks once.
func (c *Clock) look() (nanos int64, drift time.Duration) {
	now := time.Now()
	nanos = c.at(now)
	return nanos, time.Duration(c.wallAt(now) - nanos - c.shift)
}

// Package eval evaluates HCL within an allowance, so that neither a file nor an event can make an
// expression run for long. HCL itself has no limits.
//
// Read in this order: Allowance, Guard, Functions, then the functions of regular expressions in
// regex.go.
package eval

import (
	"fmt"
	"time"
)

// Limits of one evaluation beside its budget of time.
const (
	MaxValues = 10_000  // elements of a list that a function makes
	MaxText   = 1 << 20 // bytes of a text that a function makes
	maxSteps  = 10_000  // rounds of for and of splats
	maxMade   = 4 << 20 // bytes that those rounds make
)

// quantum is the cost after which an evaluation looks at the clock, and needs a place in its
// Lane. A cheaper one does neither, so that a loaded or stalled machine cannot make it fail.
const quantum = int(time.Millisecond)

// stall is the part of a budget that can pass between two looks at the clock. After a longer
// pause the machine was stopped, which is not the expression's fault.
const stall = 5

// BoundError says which limit was met. It contains no data.
type BoundError string

func (e BoundError) Error() string { return string(e) }

// ErrTooMuch ends an evaluation whose values are too large.
var ErrTooMuch = BoundError(fmt.Sprintf("it takes more than %d rounds of for and splats, or makes more than %d bytes in them", maxSteps, maxMade))

// ErrTooLong ends an evaluation that has used all of its budget.
var ErrTooLong = BoundError("it takes longer than its budget")

// ErrBusy ends an evaluation that found no place in its Lane. It may succeed later.
var ErrBusy = BoundError("too many other expensive expressions are evaluated at this time")

// Allowance is what is left for one evaluation, or for several that share it. It is used by one
// goroutine at a time. The zero value has nothing left.
//
// Cost is counted in units of about a nanosecond, before the work is done, because Go functions
// cannot be interrupted. The clock is only the outer bound, for work that takes longer than its
// estimate.
type Allowance struct {
	lane   *Lane
	budget time.Duration

	steps, made int
	cost, next  int // so far, and at which the clock is looked at
	failed      error

	seen    time.Time     // when the clock was looked at
	elapsed time.Duration // between the looks
	placed  bool          // has a place in the lane
}

// Begin gives the whole budget for the next evaluation. lane may be nil. The caller must call
// End.
func (a *Allowance) Begin(budget time.Duration, lane *Lane) {
	*a = Allowance{lane: lane, budget: budget, steps: maxSteps, made: maxMade, next: min(quantum, int(budget))}
}

// End gives back the place in the lane.
func (a *Allowance) End() {
	if a.placed {
		a.lane.leave()
		a.placed = false
	}
}

// Err says why the allowance is spent, nil if it is not.
func (a *Allowance) Err() error { return a.failed }

// Used is the used part of the budget, by cost or by time. It may exceed the budget.
func (a *Allowance) Used() time.Duration { return max(time.Duration(a.cost), a.elapsed) }

// Spend takes a cost, in nanoseconds, before the work is done. It returns false if not enough is
// left.
func (a *Allowance) Spend(cost int) bool {
	if a.cost += cost; a.cost >= a.next || cost < 0 {
		a.look()
	}
	return a.failed == nil
}

// take takes from the steps and from the bytes.
func (a *Allowance) take(steps, made int) bool {
	a.steps -= steps
	a.made -= made
	if (a.steps < 0 || a.made < 0) && a.failed == nil {
		a.failed = ErrTooMuch
	}
	return a.failed == nil
}

// look compares with the budget.
func (a *Allowance) look() {
	switch {
	case a.failed != nil:
		return
	case a.cost > int(a.budget) || a.cost < 0:
		a.failed = ErrTooLong
		return
	case a.seen.IsZero():
		if a.placed = a.lane.enter(); a.lane != nil && !a.placed {
			a.failed = ErrBusy
			return
		}
		a.seen = time.Now()
	default:
		now := time.Now()
		a.elapsed += min(now.Sub(a.seen), a.budget/stall)
		if a.seen = now; a.elapsed > a.budget {
			a.failed = ErrTooLong
			return
		}
	}
	a.next = a.cost + quantum
}

// laneWait bounds how long an evaluation waits for a place.
const laneWait = 2 * time.Second

// Lane bounds how many evaluations that cost more than a millisecond run at a time, so that other
// work gets a processor. nil bounds nothing.
type Lane struct{ places chan struct{} }

// NewLane makes a lane with so many places.
func NewLane(places int) *Lane { return &Lane{make(chan struct{}, max(places, 1))} }

func (l *Lane) enter() bool {
	if l == nil {
		return false
	}
	select {
	case l.places <- struct{}{}:
		return true
	default:
	}
	wait := time.NewTimer(laneWait)
	defer wait.Stop()
	select {
	case l.places <- struct{}{}:
		return true
	case <-wait.C:
		return false
	}
}

func (l *Lane) leave() { <-l.places }

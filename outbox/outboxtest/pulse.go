package outboxtest

import (
	"context"
	"time"
)

// pulse measures for how long a machine stalls, in the process of the test or in what answers it, so that
// real time can be compared on a machine that is busy with something else. A nil pulse, as in a bubble, finds no stalls.
type pulse struct {
	quit, ended chan struct{}

	turn    chan struct{} // holds one while the engine is asked: who has it may use the rest
	last    time.Time
	stalled time.Duration
}

const (
	pulseEvery = 5 * time.Millisecond
	pulseLate  = 20 * time.Millisecond // from which on a beat is a stall
)

// startPulse begins to measure how late its beats are, and how long ask takes.
func startPulse(ctx context.Context, ask func(context.Context) error) *pulse {
	p := &pulse{quit: make(chan struct{}), ended: make(chan struct{}), turn: make(chan struct{}, 1), last: time.Now()}
	go func() {
		defer close(p.ended)
		beat := time.NewTicker(pulseEvery)
		defer beat.Stop()
		for {
			select {
			case <-p.quit:
				return
			case <-beat.C:
			}
			p.turn <- struct{}{}
			_ = ask(ctx) // only how long it takes
			p.count()
			<-p.turn
		}
	}()
	return p
}

// count adds the time since the last beat, if it was long. The caller has the turn.
func (p *pulse) count() {
	now := time.Now()
	if late := now.Sub(p.last) - pulseEvery; late > pulseLate {
		p.stalled += late
	}
	p.last = now
}

// stalls is how long the machine has stalled so far.
func (p *pulse) stalls() time.Duration {
	if p == nil {
		return 0
	}
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	p.count()
	return p.stalled
}

// without runs f while the engine is not asked, as when it is opened again.
func (p *pulse) without(f func()) {
	if p == nil {
		f()
		return
	}
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	f()
	p.count()
}

func (p *pulse) stop() {
	close(p.quit)
	<-p.ended
}

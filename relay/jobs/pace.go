package jobs

import (
	"math"
	"time"

	"relay/outbox"
)

// pace spreads changes over time, so that no second has more than rate of them.
type pace struct {
	rate float64 // per second; 0 for no bound
	next time.Time
}

const (
	parts = 10  // of a second, each with its share of the rate
	ahead = 0.5 // seconds that a page may last: what is stored before it is begun
)

// page is how many deliveries a page should have.
func (p *pace) page() int {
	if p.rate == 0 {
		return outbox.MaxPage
	}
	return int(min(max(p.rate*ahead, 1), outbox.MaxPage))
}

// take is how many of n can be changed now.
func (p *pace) take(n int) int {
	if p.rate == 0 {
		return n
	}
	return min(n, max(1, int(p.rate/parts)))
}

// spent notes changes that were made just now.
func (p *pace) spent(n int) {
	if p.rate == 0 || n == 0 {
		return
	}
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(time.Duration(math.Ceil(float64(n) / p.rate * float64(time.Second))))
}

package deliver

import (
	"time"

	"relay/outbox"
)

// behind is how late a delivery must begin for its endpoint to count as overloaded.
const behind = time.Second

// fairness shares an endpoint's slots between new deliveries and a backlog. While the endpoint
// keeps up, deliveries go in their order.
type fairness struct {
	late   bool
	credit float64 // slots owed to fresh deliveries
	next   float64 // credit after the claim under way, if it brings something
}

// fresh tells how many of n claims go to the express lane.
func (f *fairness) fresh(n int, share float64) int {
	if !f.late {
		return 0
	}
	f.next = f.credit + float64(n)*share
	fresh := min(int(f.next), n)
	f.next -= float64(fresh)
	return fresh
}

// observe notes whether the endpoint is behind: a claim for n returned n, and the oldest was
// over a second late.
func (f *fairness) observe(claims []outbox.Claim, n int, now time.Time) {
	if len(claims) == 0 {
		return
	}
	oldest := now
	for i := range claims {
		if due := claims[i].Due; due.Before(oldest) {
			oldest = due
		}
	}
	f.credit = f.next
	if f.late = len(claims) == n && now.Sub(oldest) > behind; !f.late {
		f.credit, f.next = 0, 0
	}
}

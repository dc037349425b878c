package deliver

import (
	"slices"

	"relay/outbox"
)

// listener gets the attempts that ended.
type listener struct{ hear func(*outbox.Item) }

// Listen calls hear after each recorded attempt of this Relay, with the delivery as it is then. It is called from many goroutines,
// must not block, and must not change the item, which it may keep. Nobody is called after stop has returned, except who is
// called at that moment.
func (d *Deliverer) Listen(hear func(*outbox.Item)) (stop func()) {
	l := &listener{hear}
	d.change(func(all []*listener) []*listener { return append(all, l) })
	return func() {
		d.change(func(all []*listener) []*listener {
			return slices.DeleteFunc(all, func(o *listener) bool { return o == l })
		})
	}
}

// change replaces the list of listeners by another one. It is nil while there are none, so that
// attempts then cost nothing more.
func (d *Deliverer) change(to func([]*listener) []*listener) {
	for {
		old := d.listeners.Load()
		var all []*listener
		if old != nil {
			all = slices.Clone(*old)
		}
		now := &all
		if all = to(all); len(all) == 0 {
			now = nil
		}
		if d.listeners.CompareAndSwap(old, now) {
			return
		}
	}
}

// tell tells listeners of an attempt of c.
func (d *Deliverer) tell(c *outbox.Claim, res *Result) {
	if d.listeners.Load() == nil {
		return
	}
	e := c.Event
	a := res.Attempt
	i := &outbox.Item{
		Delivery: c.Delivery, Type: e.Type, Tenant: e.Tenant, Key: e.Key, Time: e.Time, Fields: e.Fields,
		Last: &a, Error: a.Error,
	}
	i.State, i.Attempts, i.Code, i.Due = res.State, a.N, a.Code, res.Due
	if res.State.Final() {
		i.Finished = a.Started.Add(a.Took)
	}
	d.Tell(i)
}

// Tell tells listeners of an attempt that was made outside of Run.
func (d *Deliverer) Tell(i *outbox.Item) {
	if all := d.listeners.Load(); all != nil {
		for _, l := range *all {
			l.hear(i)
		}
	}
}

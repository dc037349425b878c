package deliver

import (
	"time"

	"relay/policy"
)

// takes tells whether deliveries are made to the endpoint. The caller holds mu.
func (d *Deliverer) takes(e *policy.Endpoint) bool {
	_, held := d.holds[e.Name]
	return e.Enabled && !held
}

func (d *Deliverer) fromPolicy(name string) *policy.Endpoint {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.policy.Endpoint(name)
}

// change puts next in place when the endpoint is in the state from, "" for any but
// that of next.
func (d *Deliverer) change(name string, from State, next Status) (Status, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.policy.Endpoint(name) == nil {
		return Status{}, ErrNoEndpoint
	}
	now := d.status(name)
	if now.State == next.State || from != "" && now.State != from {
		return now, nil
	}
	next.Endpoint, next.Since = name, time.Now().UTC()
	if next.State == Active {
		delete(d.holds, name)
	} else {
		d.holds[name] = next
	}
	d.apply(d.policy)
	return d.status(name), nil
}

// status is that of an endpoint of the policy. The caller holds mu.
func (d *Deliverer) status(name string) Status {
	s, held := d.holds[name]
	switch {
	case !d.policy.Endpoint(name).Enabled:
		s = Status{State: Disabled, Reason: "the file says enabled = false"}
	case !held:
		s.State = Active
	}
	s.Endpoint = name
	switch s.State {
	case Paused:
		s.Waiting = WaitPaused
	case Disabled:
		s.Waiting = WaitDisabled
	}
	if r := d.runners[name]; r != nil {
		r.mu.Lock()
		if r.now != nil {
			s.InFlight = r.now.wire.users
		}
		r.mu.Unlock()
	}
	return s
}

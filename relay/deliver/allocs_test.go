//go:build !race

package deliver

import (
	"net/url"
	"testing"

	"relay/policy"
)

// An attempt makes two objects beside its answer: the text of the signature's headers, and its request as the record has it.
func TestAllocationsOfAttempt(t *testing.T) {
	e := endpointAt(t, "billing", &url.URL{Scheme: "https", Host: "billing.test"})
	d := New(Options{Source: settled{}}, &policy.Policy{Endpoints: []*policy.Endpoint{e}})
	r := d.runners["billing"]
	r.now.conns.once.Do(func() { r.now.conns.out = discard{} })
	claims := benchClaim()
	if n := testing.AllocsPerRun(100, func() { r.attempt(r.now, claims, nil, false) }); n != 2 {
		t.Errorf("%v objects, want 2", n)
	}
	claims[0].Event.Trace = fromApp // kept by a Relay that traces
	if n := testing.AllocsPerRun(100, func() { r.attempt(r.now, claims, nil, false) }); n != 2 {
		t.Errorf("of an event with a trace, %v objects, want 2", n)
	}
}

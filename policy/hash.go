package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"relay/config"
	"relay/policy/sign"
)

// Hashes returns a short hash of each endpoint's settings, by name, so that Relays with one
// outbox can tell whether their files agree. Values of secrets and headers, and a URL's query,
// are left out, because not even a hash of them may leave the process.
func (p *Policy) Hashes() map[string]string {
	all := make(map[string]string, len(p.Endpoints))
	for _, e := range p.Endpoints {
		if !e.Made { // all Relays of the outbox have the same of these
			all[e.Name] = e.Hash()
		}
	}
	return all
}

// Hash is 12 hex digits over the hashes of all endpoints of the file and event types, in order.
func (p *Policy) Hash() string {
	h := sha256.New()
	for _, e := range p.Endpoints {
		if !e.Made {
			fmt.Fprintln(h, e.Name, e.Hash())
		}
	}
	for _, t := range p.Types {
		fmt.Fprintln(h, "event_type", t.Name, t.Hash())
	}
	for _, a := range p.Alerts {
		for _, s := range a.settings() {
			fmt.Fprintln(h, "alert", a.Name, s.Name, s.Value)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}

// Equal reports whether deliveries of both endpoints are made in the same way. It also compares
// what the hash leaves out: secrets and the values of headers. The order of lists that have none
// does not matter.
func (e *Endpoint) Equal(o *Endpoint) bool {
	return e == o ||
		e.Name == o.Name &&
			e.URL.String() == o.URL.String() && // with user and query
			slices.EqualFunc(e.settings(), o.settings(), sameSetting) &&
			e.Body.equal(o.Body) &&
			slices.EqualFunc(e.Headers, o.Headers, func(a, b Header) bool { return a.Name == b.Name && a.Value.Equal(b.Value) }) &&
			slices.EqualFunc(e.Signers, o.Signers, (*sign.Signer).Equal)
}

func sameSetting(a, b config.Setting) bool {
	return a.Name == b.Name && a.Value == b.Value && a.Hidden.Equal(b.Hidden)
}

// Hash is 12 hex digits over the endpoint's settings, without what env() and file() gave.
func (e *Endpoint) Hash() string {
	var text []byte
	for _, s := range e.settings() {
		text = append(append(append(append(text, s.Name...), ' '), s.Value...), '\n')
	}
	for _, s := range e.Signers {
		text = fmt.Appendln(text, "sign", s) // its name and its number of secrets
	}
	return fingerprint(text)
}

package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"relay/relay/sign"
)

// Hashes returns a short hash of each endpoint's settings, by name, so that Relays
// with one outbox can tell whether their files agree. The values of secrets and
// headers, and a URL's query, are not in it: not even a trace of them may leave the process.
func (p *Policy) Hashes() map[string]string {
	all := make(map[string]string, len(p.Endpoints))
	for _, e := range p.Endpoints {
		all[e.Name] = e.Hash()
	}
	return all
}

// Hash is 12 hex digits that differ when the hash of an endpoint does, or their order.
func (p *Policy) Hash() string {
	h := sha256.New()
	for _, e := range p.Endpoints {
		fmt.Fprintln(h, e.Name, e.Hash())
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}

// Equal tells whether an endpoint's deliveries are made in the same way. It compares
// what the hash leaves out, too: secrets, and the values of headers.
func (e *Endpoint) Equal(o *Endpoint) bool {
	return e == o ||
		e.Name == o.Name &&
			e.Description == o.Description &&
			e.URL.String() == o.URL.String() && // with user and query
			e.Hash() == o.Hash() &&
			e.Body.equal(o.Body) &&
			slices.EqualFunc(e.Headers, o.Headers, func(a, b Header) bool { return a.Name == b.Name && a.Value.Equal(b.Value) }) &&
			slices.EqualFunc(e.Signers, o.Signers, (*sign.Signer).Equal)
}

// Hash is 12 hex digits that differ when the endpoint's settings do.
func (e *Endpoint) Hash() string {
	h := sha256.New()
	url := *e.URL
	url.User, url.RawQuery = nil, "" // they may hold a credential
	fmt.Fprintf(h, "%s\n%t\n%s\n%d %t\n%v\n%v %v\n%v\n", &url, e.Enabled, e.Events, e.Concurrency, e.HTTP2, e.Timeout, e.Retry.Schedule, e.Retry.Jitter, e.Retry.On)
	fmt.Fprintf(h, "%v\n%v %t %v\n", e.Retry.MaxRetryAfter, e.Egress.AllowPrivate, e.Egress.AllowPlaintext, e.Egress.Ports)
	if e.Body != nil {
		fmt.Fprintln(h, "body", e.Body)
	}
	for _, line := range e.Headers {
		fmt.Fprintln(h, "header", line.Name)
	}
	for _, s := range e.Signers {
		fmt.Fprintln(h, "sign", s) // its name and the number of its secrets
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}

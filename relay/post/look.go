package post

import (
	"context"
	"crypto/tls"
	"errors"
	"time"

	"relay/outbox"
	"relay/policy"
)

// Seen is what Look learned of an endpoint. Without TLS only Peer and Timing are set.
type Seen struct {
	Peer        string // the address that was dialled
	Timing      outbox.Timing
	TLS         string    // the version: "TLS 1.3"
	From, Until time.Time // when the receiver's chain of certificates is valid

	// AsksCertificate is true if the receiver asked for a certificate of the client.
	AsksCertificate bool
}

// Look opens a connection to e as an attempt does, with the guard and the settings of TLS, and
// closes it. It sends no request. The Seen holds what is known, also with a Failure.
func (c *Client) Look(ctx context.Context, e *policy.Endpoint) (Seen, *Failure) {
	d := c.dialer(e)
	var s Seen
	dial := d.dial
	if e.URL.Scheme == "https" {
		dial = d.dialTLS
	}
	open, err := dial(ctx, "tcp", addressOf(e))
	if err != nil {
		f := &Failure{Code: policy.CodeUnreachable, Text: clip(reason(err))}
		if failed, ok := errors.AsType[*dialError](err); ok {
			f.Code, s.Timing = failed.code, failed.timing
		}
		return s, f
	}
	defer open.Close()
	s.Timing, s.Peer = baseOf(open).timing, open.RemoteAddr().String()
	if secure, ok := open.(*tls.Conn); ok {
		state := secure.ConnectionState()
		s.TLS, s.AsksCertificate = tls.VersionName(state.Version), d.asked.Load()
		s.From, s.Until = validity(state)
	}
	return s, nil
}

// validity is that of the verified chain that is valid for the longest time.
func validity(state tls.ConnectionState) (from, until time.Time) {
	for _, chain := range state.VerifiedChains {
		start, end := chain[0].NotBefore, chain[0].NotAfter
		for _, cert := range chain[1:] {
			if cert.NotAfter.Before(end) {
				start, end = cert.NotBefore, cert.NotAfter
			}
		}
		if end.After(until) {
			from, until = start, end
		}
	}
	return from, until
}

package deliver

import (
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strconv"
	"syscall"

	"relay/policy"
)

// Outcome is what an attempt came to.
type Outcome string

// The outcomes.
const (
	Delivered Outcome = "delivered" // any 2xx
	Retry     Outcome = "retry"     // may go better later
	Refused   Outcome = "refused"   // the receiver's final answer
	Gone      Outcome = "gone"      // 410: the receiver wants no more events
)

// The codes of attempts that got no whole answer. An answer has the code
// http_<status>, except for redirects (codeRedirect) and 410 (codeGone).
const (
	codeTimeout        = "timeout"               // the attempt's total time passed
	codeConnectTimeout = "connect_timeout"       // no connection, or no TLS, in time
	codeNoSuchHost     = "dns_not_found"         // the name does not exist
	codeDNS            = "dns_failed"            // the name servers gave no answer
	codeEgress         = "egress_denied"         // the address is not one we may connect to
	codeRefused        = "connection_refused"    // nobody listens
	codeUnreachable    = "connection_failed"     // no route, or another trouble on the way
	codeReset          = "connection_reset"      // the connection ended before the answer did
	codeTLSExpired     = "tls_expired"           // certificate out of date
	codeTLSName        = "tls_wrong_name"        // certificate for another name
	codeTLSAuthority   = "tls_unknown_authority" // certificate of an unknown issuer
	codeTLS            = "tls_failed"            // any other trouble with TLS
	codeBadResponse    = "bad_response"          // not HTTP, or its header is too large
	codeBody           = "body_error"            // the endpoint's body cannot be made of the event; never tried again
	codeBatchRefused   = "batch_refused"         // so was the batch, not the event: it goes alone next
	codePanic          = "panic"                 // a defect of ours

	codeRedirect = "redirect_not_followed"
	codeGone     = "gone"
)

// classify judges an attempt by the status of its answer or, where code is set,
// by the reason why there is no whole one. It returns the outcome and the code for the
// record, "" for delivered.
func classify(status int, code string, on policy.Outcomes) (Outcome, string) {
	switch code {
	case "":
		return classifyStatus(status, on)
	case codePanic:
		return Retry, code
	default:
		return retryIf(on.Has(0, code)), code
	}
}

func classifyStatus(status int, on policy.Outcomes) (Outcome, string) {
	if status >= 200 && status <= 299 {
		return Delivered, ""
	}
	outcome, code := retryIf(on.Status(status)), "http_"+strconv.Itoa(status)
	switch {
	case status >= 300 && status <= 399:
		code = codeRedirect
	case status == 410:
		code = codeGone
		if outcome == Refused {
			outcome = Gone
		}
	}
	return outcome, code
}

func retryIf(again bool) Outcome {
	if again {
		return Retry
	}
	return Refused
}

// dialCode names the reason why there is no connection.
func dialCode(err error, handshake bool) string {
	if _, ok := errors.AsType[*deniedError](err); ok {
		return codeEgress
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsNotFound {
			return codeNoSuchHost
		}
		return codeDNS
	}
	switch timeout, ok := errors.AsType[net.Error](err); {
	case ok && timeout.Timeout():
		return codeConnectTimeout
	case errors.Is(err, syscall.ECONNRESET):
		return codeReset // whether it is noticed now or with the first byte is chance
	case handshake:
		return tlsCode(err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return codeRefused
	default:
		return codeUnreachable
	}
}

func tlsCode(err error) string {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return codeTLSExpired
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return codeTLSName
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return codeTLSAuthority
	}
	return codeTLS
}

// exchangeCode names the reason why a connection brought no whole answer.
// answering tells whether some of it had come: what came and was not a broken
// connection was not HTTP.
func exchangeCode(err error, answering bool) string {
	if op, ok := errors.AsType[*net.OpError](err); ok && (op.Op == "remote error" || op.Op == "local error") {
		return codeTLS // an alert, theirs or ours: with TLS 1.3 a receiver may turn us away after the handshake
	}
	if answering && !isBroken(err) {
		return codeBadResponse
	}
	return codeReset
}

// isBroken tells whether err is of the connection, not of what came over it.
func isBroken(err error) bool {
	_, ok := errors.AsType[*net.OpError](err)
	return ok || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe)
}

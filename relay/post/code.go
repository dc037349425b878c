package post

import (
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"relay/policy"
)

// The codes of answers with an incomplete body. The status still decides the outcome.
const (
	CodeBodyCut     = "body_cut"     // the body broke off, or its framing is invalid
	CodeBodyTimeout = "body_timeout" // the body was not complete at the end of the attempt
)

// bodyFault converts the error of reading a body to its code.
func bodyFault(err error, until time.Time) *Failure {
	switch {
	case !time.Now().Before(until):
		return &Failure{CodeBodyTimeout, "the answer's body had not ended when the attempt's time was over"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &Failure{CodeBodyCut, "the connection ended before the answer's body did"}
	}
	return &Failure{CodeBodyCut, clip("the answer's body broke off: " + reason(err))}
}

// exchangeFailure says why there is no complete head of an answer. answering is true if a part of
// it had arrived.
func exchangeFailure(err error, answering bool) *Failure {
	code := exchangeCode(err, answering)
	switch {
	case code == policy.CodeBadResponse:
		// The library's text may quote the receiver.
		return &Failure{code, "the answer is not HTTP, or its header is larger than 64 KiB"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &Failure{code, "the connection ended before the answer did"}
	}
	return &Failure{code, clip(reason(err))}
}

// reason is the text of an error without addresses of this machine and of its name servers: customers see it, and it helps
// nobody to mend a receiver.
func reason(err error) string {
	text := err.Error()
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		// The library's own reason may hold addresses of both ends, and then ends with what went wrong.
		plain := net.DNSError{Name: dns.Name, Err: dns.Err[strings.LastIndex(": "+dns.Err, ": "):]}
		return strings.Replace(text, dns.Error(), plain.Error(), 1)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Source != nil {
		plain := *op
		plain.Source = nil
		return strings.Replace(text, op.Error(), plain.Error(), 1)
	}
	return text
}

func clip(s string) string { return s[:min(len(s), maxText)] }

// dialCode names the reason why there is no connection.
func dialCode(err error, handshake bool) string {
	if _, ok := errors.AsType[*deniedError](err); ok {
		return policy.CodeEgress
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsNotFound {
			return policy.CodeNoSuchHost
		}
		return policy.CodeDNS
	}
	switch timeout, ok := errors.AsType[net.Error](err); {
	case isOutOfFiles(err):
		return CodeNoSocket
	case ok && timeout.Timeout():
		return policy.CodeConnectTimeout
	case errors.Is(err, syscall.ECONNRESET):
		return policy.CodeReset // it is chance whether this is noticed now or with the first byte
	case handshake:
		return tlsCode(err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return policy.CodeRefused
	default:
		return policy.CodeUnreachable
	}
}

func tlsCode(err error) string {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return policy.CodeTLSExpired
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return policy.CodeTLSName
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return policy.CodeTLSAuthority
	}
	return policy.CodeTLS
}

// exchangeCode is the code for an incomplete head of an answer. answering is true if a part of it
// had arrived; unless the connection broke, that part was not HTTP.
func exchangeCode(err error, answering bool) string {
	if op, ok := errors.AsType[*net.OpError](err); ok && (op.Op == "remote error" || op.Op == "local error") {
		return policy.CodeTLS // an alert of either side: with TLS 1.3 a receiver may refuse the client after the handshake
	}
	if answering && !isBroken(err) {
		return policy.CodeBadResponse
	}
	return policy.CodeReset
}

// isBroken reports whether err is an error of the connection, not of the data.
func isBroken(err error) bool {
	_, ok := errors.AsType[*net.OpError](err)
	return ok || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe)
}

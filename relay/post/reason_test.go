package post

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
)

// Errors of attempts, which customers see, name neither name servers nor addresses of this machine.
func TestReason(t *testing.T) {
	at := func(s string) net.Addr {
		a, err := net.ResolveTCPAddr("tcp", s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	lookup := func(why string) error {
		return &dialError{err: &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Name: "a.example", Server: "10.255.255.53:53", Err: why}}}
	}
	reset := &net.OpError{Op: "read", Net: "tcp", Source: at("10.0.0.5:41234"), Addr: at("192.0.2.1:443"), Err: syscall.ECONNRESET}
	for want, err := range map[string]error{
		"dial tcp: lookup a.example: no such host":                        lookup("no such host"),
		"dial tcp: lookup a.example: i/o timeout":                         lookup("read udp 10.0.0.5:41234->10.255.255.53:53: i/o timeout"),
		"dial tcp: lookup a.example: connection refused":                  lookup("dial udp 10.255.255.53:53: connect: connection refused"),
		"tls handshake: read tcp 192.0.2.1:443: connection reset by peer": &dialError{err: fmt.Errorf("tls handshake: %w", reset)},
		"dial tcp 192.0.2.1:443: connection refused":                      &net.OpError{Op: "dial", Net: "tcp", Addr: at("192.0.2.1:443"), Err: syscall.ECONNREFUSED},
		"something else": errors.New("something else"),
	} {
		if got := reason(err); got != want {
			t.Errorf("%v\nis told as %q\nwant        %q", err, got, want)
		}
	}
	if f := exchangeFailure(reset, false); f.Text != "read tcp 192.0.2.1:443: connection reset by peer" {
		t.Errorf("of an exchange: %q", f.Text)
	}
}

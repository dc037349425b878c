package policy

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"

	"relay/config"
)

// Outcomes is a set of unsuccessful ends of attempts: statuses of answers, and codes of attempts
// without an answer. The zero value is empty. Values can be compared with ==.
type Outcomes struct {
	statuses [600/64 + 1]uint64 // a bit for each status
	codes    uint32             // a bit for each of errorCodes
}

const (
	network = "network"
	timeout = "timeout"
)

// The codes of attempts without an answer, as in their records.
const (
	CodeTimeout        = "timeout"               // the attempt's total time passed
	CodeConnectTimeout = "connect_timeout"       // no connection, or no TLS, in time
	CodeNoSuchHost     = "dns_not_found"         // the name does not exist
	CodeDNS            = "dns_failed"            // the name servers gave no answer
	CodeEgress         = "egress_denied"         // connections to the address are denied
	CodeRefused        = "connection_refused"    // nobody listens
	CodeUnreachable    = "connection_failed"     // no route, or another network error
	CodeReset          = "connection_reset"      // the connection ended before the head of an answer was whole
	CodeTLSExpired     = "tls_expired"           // certificate out of date
	CodeTLSName        = "tls_wrong_name"        // certificate for another name
	CodeTLSAuthority   = "tls_unknown_authority" // certificate of an unknown issuer
	CodeTLS            = "tls_failed"            // any other error of TLS
	CodeBadResponse    = "bad_response"          // not HTTP, or its header is too large
)

// errorCodes lists all codes above. The first timeoutCodes are "timeout", the others "network".
func errorCodes() []string {
	return []string{
		CodeTimeout, CodeConnectTimeout,
		CodeNoSuchHost, CodeDNS, CodeEgress, CodeRefused, CodeUnreachable, CodeReset,
		CodeTLSExpired, CodeTLSName, CodeTLSAuthority, CodeTLS, CodeBadResponse,
	}
}

const (
	timeoutCodes = 2
	anyTimeout   = 1<<timeoutCodes - 1
)

func anyNetwork() uint32 { return (uint32(1)<<len(errorCodes()) - 1) &^ anyTimeout }

// ParseOutcomes reads a list of the file: "network" for all errors without a timeout,
// "timeout" for both of those, one error by its code ("connection_refused"), a status
// "300" to "599" or a class "3xx", "4xx", "5xx".
func ParseOutcomes(list []string) (Outcomes, error) {
	var o Outcomes
	for _, s := range list {
		if err := o.add(s); err != nil {
			return Outcomes{}, err
		}
	}
	return o, nil
}

// Has reports whether the set has the status of an answer or, if code is not "", the code of an
// attempt without one.
func (o Outcomes) Has(status int, code string) bool {
	if code == "" {
		return o.Status(status)
	}
	i := slices.Index(errorCodes(), code)
	return i >= 0 && o.codes&(1<<i) != 0
}

// Status tells whether answers with this HTTP status are among them.
func (o Outcomes) Status(code int) bool {
	return code >= 0 && code < 600 && o.statuses[code/64]&(1<<(code%64)) != 0
}

// List is the set as the file would write it: network, timeout, single errors, then classes and
// statuses by number.
func (o Outcomes) List() []string {
	var list []string
	rest := o.codes
	if all := anyNetwork(); rest&all == all {
		list = append(list, network)
		rest &^= all
	}
	if rest&anyTimeout == anyTimeout {
		list = append(list, timeout)
		rest &^= anyTimeout
	}
	for i, code := range errorCodes() {
		if rest&(1<<i) != 0 {
			list = append(list, code)
		}
	}
	for class := 3; class <= 5; class++ {
		var some []int
		for code := class * 100; code < class*100+100; code++ {
			if o.Status(code) {
				some = append(some, code)
			}
		}
		if len(some) == 100 {
			list = append(list, strconv.Itoa(class)+"xx")
			continue
		}
		for _, code := range some {
			list = append(list, strconv.Itoa(code))
		}
	}
	return list
}

// size is how many statuses and codes are in the set.
func (o Outcomes) size() int {
	n := bits.OnesCount32(o.codes)
	for _, word := range o.statuses {
		n += bits.OnesCount64(word)
	}
	return n
}

// union adds the others to the set.
func (o *Outcomes) union(other Outcomes) {
	o.codes |= other.codes
	for i, word := range other.statuses {
		o.statuses[i] |= word
	}
}

func (o *Outcomes) add(s string) error {
	switch s {
	case network:
		o.codes |= anyNetwork()
		return nil
	case timeout:
		o.codes |= anyTimeout
		return nil
	}
	if i := slices.Index(errorCodes(), s); i >= 0 {
		o.codes |= 1 << i
		return nil
	}
	// 1xx are not final, and 2xx are delivered.
	first, last := 0, -1
	if len(s) == 3 && s[0] >= '3' && s[0] <= '5' {
		if s[1:] == "xx" {
			first = int(s[0]-'0') * 100
			last = first + 99
		} else if n, err := strconv.ParseUint(s, 10, 16); err == nil {
			first, last = int(n), int(n)
		}
	}
	if last < 0 {
		return fmt.Errorf(`write "network", "timeout", the code of an error, a status "300" to "599" or a class "3xx", "4xx", "5xx".%s`,
			config.Suggest(s, append([]string{network}, errorCodes()...)))
	}
	for code := first; code <= last; code++ {
		o.statuses[code/64] |= 1 << (code % 64)
	}
	return nil
}

package delivertest

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// Names is a DNS server on 127.0.0.1, by UDP and TCP.
type Names struct {
	answer   func(name string) Reply
	udp, tcp string // addresses

	mu    sync.Mutex
	asked map[string]int // by name, without the dot at its end
	conns []net.Conn     // of resolvers
}

// Reply is what a name leads to. The zero value is an answer without addresses.
type Reply struct {
	Code    dnsmessage.RCode
	Aliases []string     // CNAME records from the name to where the addresses are
	Addrs   []netip.Addr // IPv4 ones are for A, all others for AAAA
	Mute    bool         // no answer comes
	Cut     bool         // the answer does not fit UDP: it must be asked for by TCP
}

// NewNames serves until the test ends. answer is called for each question, A and AAAA
// alike, from several goroutines.
func NewNames(t testing.TB, answer func(name string) Reply) *Names {
	t.Helper()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &Names{answer: answer, udp: udp.LocalAddr().String(), tcp: tcp.Addr().String(), asked: map[string]int{}}
	var serving sync.WaitGroup
	serving.Go(func() { n.serveUDP(udp) })
	serving.Go(func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { n.serveTCP(c) })
		}
	})
	t.Cleanup(func() {
		udp.Close()
		tcp.Close()
		serving.Wait()
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, c := range n.conns { // a question without answer is waited for long after its asker has gone
			c.Close()
		}
	})
	return n
}

// Resolver asks this server and nobody else.
func (n *Names) Resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		address := n.udp
		if strings.HasPrefix(network, "tcp") {
			address = n.tcp
		}
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.conns = append(n.conns, c)
		return c, nil
	}}
}

// Asked returns how many questions came for a name.
func (n *Names) Asked(name string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked[name]
}

func (n *Names) serveUDP(c net.PacketConn) {
	buf := make([]byte, 4096)
	for {
		size, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		if out := n.reply(buf[:size], true); out != nil {
			_, _ = c.WriteTo(out, from)
		}
	}
}

// serveTCP answers one question, RFC 1035 section 4.2.2.
func (n *Names) serveTCP(c net.Conn) {
	defer c.Close()
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return
	}
	query := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, query); err != nil {
		return
	}
	if out := n.reply(query, false); out != nil {
		_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...))
	}
}

// reply returns the answer to a query, nil for none.
func (n *Names) reply(query []byte, udp bool) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	name := strings.TrimSuffix(q.Name.String(), ".")
	n.mu.Lock()
	n.asked[name]++
	n.mu.Unlock()
	r := n.answer(name)
	if r.Mute {
		return nil
	}
	m.Response, m.RecursionAvailable, m.RCode, m.Additionals = true, true, r.Code, nil
	if m.Truncated = udp && r.Cut; !m.Truncated && r.Code == dnsmessage.RCodeSuccess {
		m.Answers = r.records(q)
	}
	out, err := m.Pack()
	if err != nil {
		return nil
	}
	return out
}

func (r Reply) records(q dnsmessage.Question) (all []dnsmessage.Resource) {
	name := q.Name
	add := func(t dnsmessage.Type, body dnsmessage.ResourceBody) {
		all = append(all, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: name, Type: t, Class: q.Class}, Body: body})
	}
	for _, alias := range r.Aliases {
		next := dnsmessage.MustNewName(alias + ".")
		add(dnsmessage.TypeCNAME, &dnsmessage.CNAMEResource{CNAME: next})
		name = next
	}
	for _, a := range r.Addrs {
		switch {
		case a.Is4() && q.Type == dnsmessage.TypeA:
			add(q.Type, &dnsmessage.AResource{A: a.As4()})
		case !a.Is4() && q.Type == dnsmessage.TypeAAAA:
			add(q.Type, &dnsmessage.AAAAResource{AAAA: a.As16()})
		}
	}
	return all
}

package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"relay/policy"
	"relay/relay/deliver/delivertest"
	"relay/relay/post"
)

func endpointAt(name, address string) *policy.Endpoint {
	u, err := url.Parse(address)
	if err != nil {
		panic(err)
	}
	return &policy.Endpoint{Name: name, URL: u, Enabled: true, Timeout: policy.Timeout{Connect: 20 * time.Second, Total: time.Minute},
		Egress: policy.Egress{AllowPlaintext: true, AllowPrivate: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}}
}

// TestManyThatHang: the time is bounded and so are the connections, however many endpoints there
// are, and those that nobody looked at are named.
func TestManyThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var open, most atomic.Int64
		o := LookOptions{AtOnce: 64, Within: 5 * time.Second}
		o.network.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			for n := open.Add(1); ; {
				if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
					break
				}
			}
			defer open.Add(-1)
			<-ctx.Done()
			return nil, &net.OpError{Op: "dial", Err: ctx.Err()}
		}
		told := 0
		o.Progress = func(done, total int) {
			if told++; done != told || total != 1000 {
				t.Errorf("progress %d of %d after %d", done, total, told)
			}
		}
		var all []*policy.Endpoint
		for i := range 1000 {
			all = append(all, endpointAt(fmt.Sprint("e", i), fmt.Sprintf("http://h%d.test/", i)))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 28*time.Second)
		defer cancel()
		began := time.Now()
		found := Endpoints(ctx, all, o)
		if took := time.Since(began); took > 28*time.Second {
			t.Errorf("it took %s", took)
		}
		if n := most.Load(); n != 64 {
			t.Errorf("%d connections at a time, want 64", n)
		}
		hung := 0
		for _, f := range found {
			if f.Code == policy.CodeTimeout && f.Level == Warns {
				hung++
			}
		}
		// Five rounds end; the sixth is cut off.
		last := found[len(found)-1]
		if hung != 5*64 || len(last.Endpoints) != 1000-hung || !strings.Contains(last.Next, "--within") {
			t.Errorf("%d hung, and %d were not looked at: %s", hung, len(last.Endpoints), last.What)
		}
	})
}

// TestEndpointsShareALook: endpoints that connect in the same way are looked at once, and none
// that is disabled.
func TestEndpointsShareALook(t *testing.T) {
	var dials atomic.Int64
	o := LookOptions{AtOnce: 8, Within: time.Minute}
	o.network.Dial = func(context.Context, string, string) (net.Conn, error) {
		dials.Add(1)
		return nil, errors.New("no route")
	}
	a, b, c, off := endpointAt("a", "http://h.test/1"), endpointAt("b", "http://h.test/2"), endpointAt("c", "http://h.test:81/"), endpointAt("off", "http://x.test/")
	off.Enabled = false
	found := Endpoints(t.Context(), []*policy.Endpoint{a, b, c, off}, o)
	if n := dials.Load(); n != 2 || len(found) != 2 || !slices.Equal(found[0].Endpoints, []string{"a", "b"}) || !slices.Equal(found[1].Endpoints, []string{"c"}) {
		t.Errorf("%d connections, %+v", n, found)
	}
	if found[0].Code != policy.CodeUnreachable || found[0].Level != Warns {
		t.Errorf("%+v", found[0])
	}
}

// TestSecureEndpoints looks at receivers with certificates of all kinds.
func TestSecureEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := delivertest.NewNetwork()
		network.Buffered = true
		authority := delivertest.NewAuthority(t)
		o := LookOptions{AtOnce: 8, Within: time.Second, network: post.Network{Dial: network.Dial, Roots: authority.Pool()}}
		serve := func(name, certified string, expires time.Duration) (*policy.Endpoint, *delivertest.Endpoint) {
			r := &delivertest.Endpoint{TLS: authority.Issue(certified, time.Now().Add(expires))}
			l, err := network.Listen(name + ".test:443")
			if err != nil {
				t.Fatal(err)
			}
			r.Serve(t, l)
			return endpointAt(name, "https://"+name+".test/"), r
		}
		good, r := serve("good", "good.test", time.Hour)
		short, _ := serve("short", "short.test", 20*time.Minute)
		gone, _ := serve("gone", "gone.test", -time.Minute)
		other, _ := serve("other", "x.test", time.Hour)
		found := Endpoints(t.Context(), []*policy.Endpoint{good, short, gone, other}, o)
		for i, want := range []struct{ level, code, endpoint, part string }{
			{Warns, policy.CodeTLSExpired, "short", "ends in 20m0s"},
			{Breaks, policy.CodeTLSExpired, "gone", "expired"},
			{Breaks, policy.CodeTLSName, "other", "x.test"},
			{Fine, "", "", "2 endpoints answer, 2 with TLS; the first certificate to end is that of short"},
		} {
			f := found[i]
			if f.Level != want.level || f.Code != want.code || strings.Join(f.Endpoints, "") != want.endpoint || !strings.Contains(f.What, want.part) || (f.Next == "") != (f.Level == Fine) {
				t.Errorf("finding %d: %+v, want %+v", i, f, want)
			}
		}
		if n := len(r.Requests()); n != 0 || len(found) != 4 {
			t.Errorf("%d requests, %d findings", n, len(found))
		}
	})
}

// TestWarnings of endpoints that answer.
func TestWarnings(t *testing.T) {
	now := time.Now()
	leaf := func(until time.Duration) *tls.Certificate {
		return &tls.Certificate{Leaf: &x509.Certificate{NotBefore: now.Add(-time.Hour * 24 * 300), NotAfter: now.Add(until)}}
	}
	year := now.Add(-365 * 24 * time.Hour)
	for _, tt := range []struct {
		name string
		seen post.Seen
		own  *tls.Certificate
		want string
	}{
		{"good", post.Seen{TLS: "TLS 1.3", From: year, Until: now.Add(15 * 24 * time.Hour)}, nil, ""},
		{"soon", post.Seen{TLS: "TLS 1.3", From: year, Until: now.Add(13*24*time.Hour + time.Minute)}, nil, "certificate ends in 13 days"},
		{"a short one", post.Seen{TLS: "TLS 1.3", From: now.Add(-time.Hour), Until: now.Add(5 * 24 * time.Hour)}, nil, ""},
		{"asks", post.Seen{TLS: "TLS 1.3", From: year, Until: now.Add(1000 * time.Hour), AsksCertificate: true}, nil, "asks for a client certificate"},
		{"asks and gets", post.Seen{TLS: "TLS 1.3", From: year, Until: now.Add(1000 * time.Hour), AsksCertificate: true}, leaf(1000 * time.Hour), ""},
		{"own ends", post.Seen{TLS: "TLS 1.3", From: year, Until: now.Add(1000 * time.Hour)}, leaf(time.Hour), "client certificate ends in 1h0m0s"},
		{"plain, here", post.Seen{Peer: "127.0.0.1:80"}, nil, ""},
		{"plain, near", post.Seen{Peer: "[fd00::1]:80"}, nil, ""},
		{"plain, far", post.Seen{Peer: "192.0.2.1:80"}, nil, "events go unencrypted to 192.0.2.1:80"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := endpointAt("billing", "https://billing.test/")
			e.TLS.Certificate = tt.own
			found := (&target{endpoints: []*policy.Endpoint{e}, seen: tt.seen}).warnings(now)
			switch {
			case tt.want == "" && len(found) > 0:
				t.Errorf("found %+v", found)
			case tt.want != "" && (len(found) != 1 || !strings.Contains(found[0].What, tt.want) || found[0].Next == "" || found[0].Level != Warns):
				t.Errorf("found %+v, want %q", found, tt.want)
			}
		})
	}
}

// TestRemedies: each code of a connection has one, and what does not pass by itself breaks.
func TestRemedies(t *testing.T) {
	breaking := []string{policy.CodeNoSuchHost, policy.CodeEgress, policy.CodeTLSExpired, policy.CodeTLSName, policy.CodeTLSAuthority, policy.CodeTLS}
	for _, code := range append(breaking, policy.CodeDNS, policy.CodeRefused, policy.CodeUnreachable, policy.CodeReset, policy.CodeTimeout, policy.CodeConnectTimeout, post.CodeNoSocket) {
		level, next := remedy(code)
		if want := slices.Contains(breaking, code); (level == Breaks) != want || next == "" {
			t.Errorf("%s: %s, %q", code, level, next)
		}
	}
}

package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"relay/policy"
	"relay/relay/post"
)

// LookOptions are the bounds of Endpoints.
type LookOptions struct {
	Own      []netip.AddrPort      // listeners of Relay, never connected to
	AtOnce   int                   // connections at a time
	Within   time.Duration         // for each of them
	Progress func(done, total int) // called one at a time; optional

	network post.Network // of tests
}

// target is a place that endpoints have in common, and what was seen of it.
type target struct {
	endpoints []*policy.Endpoint
	seen      post.Seen
	failure   *post.Failure
	done      bool // false if the time was over before
}

// Endpoints looks at every enabled endpoint, once at those that connect in the same way, until
// ctx ends.
func Endpoints(ctx context.Context, all []*policy.Endpoint, o LookOptions) []Finding {
	targets := targetsOf(all)
	client := post.NewClient(post.Options{Own: func() []netip.AddrPort { return o.Own }, Network: o.network})
	jobs := make(chan *target)
	var work sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for range min(o.AtOnce, len(targets)) {
		work.Go(func() {
			for t := range jobs {
				t.look(ctx, client, o.Within)
				mu.Lock()
				done++
				if o.Progress != nil {
					o.Progress(done, len(targets))
				}
				mu.Unlock()
			}
		})
	}
	for _, t := range targets {
		jobs <- t
	}
	close(jobs)
	work.Wait()
	return judge(targets, time.Now())
}

// targetsOf groups the enabled endpoints that connect in the same way.
func targetsOf(all []*policy.Endpoint) []*target {
	var targets []*target
	known := map[string]*target{}
	for _, e := range all {
		if !e.Enabled {
			continue
		}
		key := fmt.Sprint(e.URL.Scheme, " ", e.URL.Hostname(), " ", e.Port(), " ", e.TLS.Digest, " ", e.TLS.MinVersion, " ", e.TLS.ServerName,
			" ", e.Egress.AllowPlaintext, " ", e.Egress.AllowPrivate, " ", e.Egress.Ports, " ", e.Hides("url"))
		t := known[key]
		if t == nil {
			t = &target{}
			known[key] = t
			targets = append(targets, t)
		}
		t.endpoints = append(t.endpoints, e)
	}
	return targets
}

func (t *target) look(ctx context.Context, client *post.Client, within time.Duration) {
	if ctx.Err() != nil {
		return
	}
	short, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	t.seen, t.failure = client.Look(short, t.endpoints[0])
	t.done = t.failure == nil || ctx.Err() == nil
}

func (t *target) names() []string {
	var names []string
	for _, e := range t.endpoints {
		names = append(names, e.Name)
	}
	return names
}

func (t *target) finding(level, code, what, next string) Finding {
	return Finding{Level: level, Part: Endpoint, Code: code, Endpoints: t.names(), What: t.endpoints[0].Hush(what), Next: next}
}

// judge makes the findings of all targets.
func judge(targets []*target, now time.Time) []Finding {
	var all []Finding
	var late []string
	answer, secure := 0, 0
	var first *target // whose certificate ends first
	for _, t := range targets {
		switch {
		case !t.done:
			late = append(late, t.names()...)
			continue
		case t.failure != nil:
			level, next := remedy(t.failure.Code)
			all = append(all, t.finding(level, t.failure.Code, t.failure.Text, next))
			continue
		}
		answer += len(t.endpoints)
		if t.seen.TLS != "" {
			secure += len(t.endpoints)
			if first == nil || t.seen.Until.Before(first.seen.Until) {
				first = t
			}
		}
		all = append(all, t.warnings(now)...)
	}
	if len(late) > 0 {
		all = append(all, Finding{Level: Warns, Part: Endpoint, Endpoints: late, What: "not looked at: the time was over", Next: "give it more with --within"})
	}
	if answer > 0 {
		what := fmt.Sprintf("%s, %d with TLS", counted(answer, "endpoint answers", "endpoints answer"), secure)
		if first != nil {
			what += fmt.Sprintf("; the first certificate to end is that of %s, on %s", first.endpoints[0].Name, first.seen.Until.UTC().Format(time.DateOnly))
		}
		all = append(all, Finding{Level: Fine, Part: Endpoint, What: what})
	}
	return all
}

// soon is how long before its end a certificate should have been renewed. One that lives for a
// short time has a third of that.
const soon = 14 * 24 * time.Hour

// warnings are what will hurt although the endpoint answers.
func (t *target) warnings(now time.Time) []Finding {
	var all []Finding
	e, s := t.endpoints[0], t.seen
	if left := s.Until.Sub(now); s.TLS != "" && left < min(soon, s.Until.Sub(s.From)/3) {
		all = append(all, t.finding(Warns, policy.CodeTLSExpired, fmt.Sprintf("the receiver's certificate ends in %s, on %s", days(left), s.Until.UTC().Format(time.RFC3339)),
			"tell the receiver to renew it: after that every delivery fails"))
	}
	if s.AsksCertificate && e.TLS.Certificate == nil {
		all = append(all, t.finding(Warns, policy.CodeTLS, "the receiver asks for a client certificate, and the endpoint has none",
			"if it requires one, write cert and key in the endpoint's tls block"))
	}
	if c := e.TLS.Certificate; c != nil && c.Leaf != nil {
		if left := c.Leaf.NotAfter.Sub(now); left < min(soon, c.Leaf.NotAfter.Sub(c.Leaf.NotBefore)/3) {
			all = append(all, t.finding(Warns, policy.CodeTLS, fmt.Sprintf("the endpoint's client certificate ends in %s, on %s", days(left), c.Leaf.NotAfter.UTC().Format(time.RFC3339)),
				"renew it: after that the receiver refuses every connection"))
		}
	}
	if s.TLS == "" && isPublic(s.Peer) {
		all = append(all, t.finding(Warns, "", "events go unencrypted to "+s.Peer, "write https:// in its url, if the receiver has it"))
	}
	return all
}

func days(left time.Duration) string {
	if left < 48*time.Hour {
		return left.Round(time.Minute).String()
	}
	return fmt.Sprintf("%d days", int(left.Hours()/24))
}

func isPublic(peer string) bool {
	at, err := netip.ParseAddrPort(peer)
	if err != nil {
		return false
	}
	ip := at.Addr().Unmap()
	return !ip.IsLoopback() && !ip.IsPrivate()
}

// remedy is how bad a failed connection is, and what to do. One that breaks does not pass by
// itself.
func remedy(code string) (level, next string) {
	switch code {
	case policy.CodeNoSuchHost:
		return Breaks, "look at the host in its url, and whether this machine's name server knows it"
	case policy.CodeDNS:
		return Warns, "look at /etc/resolv.conf and the name servers in it"
	case policy.CodeEgress:
		return Breaks, "if it is meant, write the range in allow_private of the egress block; Relay's own listeners, link-local addresses and metadata services are never allowed"
	case policy.CodeTLSExpired:
		return Breaks, "tell the receiver to renew its certificate; if it is a new one, look at this machine's clock"
	case policy.CodeTLSName:
		return Breaks, "write the name that the certificate has in the url, or as server_name in the tls block"
	case policy.CodeTLSAuthority:
		return Breaks, "name its authority with ca in the tls block; the receiver must send the certificates between, too"
	case policy.CodeTLS:
		return Breaks, "look at the receiver's versions of TLS, at min_version in the tls block, and whether the port speaks TLS at all"
	case policy.CodeRefused:
		return Warns, "nobody listens there now: start the receiver, or look at the port in its url"
	case post.CodeNoSocket:
		return Warns, "raise the limit of open files (ulimit -n)"
	}
	return Warns, "look at firewalls and routes between this machine and the receiver; deliveries are tried again on schedule"
}

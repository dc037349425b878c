package explain

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"

	"relay/config"
)

// Print writes an Explanation for people, with less than its JSON; signed is that of Options.
func (x Explanation) Print(to io.Writer, signed bool) error {
	var b bytes.Buffer
	given := ""
	if !x.Event.Given {
		given = " (its id is made when it is accepted: another one than here)"
	}
	fmt.Fprintf(&b, "event %s, type %s%s\n", x.Event.ID, x.Event.Type, given)
	if !slices.ContainsFunc(x.Endpoints, func(e Endpoint) bool { return e.Gets }) {
		fmt.Fprintf(&b, "no endpoint gets it: it would be accepted and go nowhere\n")
	}
	for _, e := range x.Endpoints {
		gets, why := "gets it", printable(e.Why)
		if e.OutboxDecides {
			gets = "gets it if the outbox says so"
		}
		switch {
		case e.WhenError != "":
			fmt.Fprintf(&b, "\n%s: its delivery would fail at once, without an attempt, with %s (%s)\n", e.Name, e.Code, why)
			continue
		case e.Held:
			fmt.Fprintf(&b, "\n%s: %s (%s), and it is held: enabled = false\n", e.Name, gets, why)
		case e.Gets:
			fmt.Fprintf(&b, "\n%s: %s (%s)\n", e.Name, gets, why)
		default:
			fmt.Fprintf(&b, "\n%s: does not get it (%s)\n", e.Name, why)
			continue
		}
		for _, cost := range e.Costly {
			fmt.Fprintf(&b, "  warning: %s; a machine that is very busy may not manage it\n", cost)
		}
		printRequest(&b, e.Sends, signed)
		printPlan(&b, e.Plan)
	}
	_, err := b.WriteTo(to)
	return err
}

func printRequest(b *bytes.Buffer, r *Request, signed bool) {
	if r.BodyError != "" {
		fmt.Fprintf(b, "\n  %-12s %s\n  this delivery would fail at once, without an attempt on the network\n", r.Code, printable(r.BodyError))
		return
	}
	fmt.Fprintf(b, "\n    %s\n", r.Line)
	for _, h := range r.Header {
		fmt.Fprintf(b, "    %s: %s\n", h.Name, h.Value)
	}
	fmt.Fprintf(b, "\n    %s\n\n", printable(r.Body))
	var signers []string
	for _, s := range r.Signed {
		signers = append(signers, fmt.Sprintf("%s with %s", s.Scheme, count(s.Secrets, "secret")))
	}
	switch {
	case len(signers) == 0:
		fmt.Fprintf(b, "  signed       no: sign = [\"none\"]\n")
	case signed:
		fmt.Fprintf(b, "  signed       %s, just now\n", strings.Join(signers, ", "))
	default:
		fmt.Fprintf(b, "  signed       %s; --sign shows signatures\n", strings.Join(signers, ", "))
	}
	if r.Trace {
		fmt.Fprintf(b, "  trace        traceparent and tracestate of the event are sent, if it has them\n")
	}
	if r.HTTP2 {
		fmt.Fprintf(b, "  http2        offered: a receiver that takes it gets the same as HTTP/2\n")
	}
}

func printPlan(b *bytes.Buffer, p *Plan) {
	fmt.Fprintf(b, "  delivered    2xx\n")
	if len(p.Hidden) > 0 {
		fmt.Fprintf(b, "  not shown    %s: env() or file() gives them\n", strings.Join(p.Hidden, ", "))
	}
	line := func(label, text string, settings ...string) {
		hidden := func(name string) bool { return slices.Contains(p.Hidden, name) }
		if !slices.ContainsFunc(settings, hidden) {
			fmt.Fprintf(b, "  %-12s %s\n", label, text)
		}
	}
	if !slices.Contains(p.Hidden, "retry") {
		printRetried(b, p)
	}
	line("timeouts", fmt.Sprintf("connect %s, total %s; connections are used for up to %s", ms(p.ConnectMS), ms(p.TotalMS), ms(p.ConnectionAgeMS)), "timeout", "connection_max_age")
	line("concurrency", concurrencyText(p.Limits), "concurrency", "fleet_concurrency", "fresh_share")
	if p.Batch != nil {
		fmt.Fprintf(b, "  batch        %s\n", batchText(p.Batch))
	}
	line("rate limit", rateText(p.Limits), "rate_limit", "obey_rate_headers")
	line("breaker", breakerText(p.Breaker), "breaker")
	line("disabled", disableText(p.Disable), "disable")
	line("tls", tlsText(p.TLS), "tls")
	line("egress", egressText(p.Egress), "egress")
	if !slices.Contains(p.Hidden, "retry") {
		printAttempts(b, p.Attempts)
	}
}

// printRetried writes which outcomes are retried, and when.
func printRetried(b *bytes.Buffer, p *Plan) {
	retried, final := "nothing", []string{"every other answer"}
	if len(p.RetryOn) > 0 {
		retried = strings.Join(p.RetryOn, " ")
	}
	if len(p.Attempts)+len(p.Classes) == 1 {
		retried += "; but there is one attempt only"
	} else if p.MaxRetryAfterMS > 0 {
		retried += "; Retry-After is honoured up to " + ms(p.MaxRetryAfterMS)
	}
	for _, missing := range []string{"network", "timeout"} {
		if !slices.Contains(p.RetryOn, missing) {
			final = append(final, missing)
		}
	}
	fmt.Fprintf(b, "  retried      %s%s\n", retried, ageText(p.MaxAgeMS))
	for _, c := range p.Classes {
		fmt.Fprintf(b, "  %-12s %s\n", "after "+c.After, classText(c))
	}
	fmt.Fprintf(b, "  final        %s\n", strings.Join(final, ", "))
}

func printAttempts(b *bytes.Buffer, all []Attempt) {
	fmt.Fprintf(b, "  attempts     %d, from now without what answers take:\n\n", len(all))
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, a := range all {
		jitter := ""
		if a.LeastMS < a.MostMS {
			jitter = fmt.Sprintf("  (%s to %s)", ms(a.LeastMS), ms(a.MostMS))
		}
		fmt.Fprintf(w, "    %d\t%s\t%s\n", a.N, ms(a.AfterMS), jitter)
	}
	_ = w.Flush() // a Buffer returns no error
	b.Write(table.Bytes())
}

func classText(c Class) string {
	if len(c.DelaysMS) == 0 {
		return "no more attempts"
	}
	var delays []string
	for _, d := range c.DelaysMS {
		delays = append(delays, ms(d))
	}
	return fmt.Sprintf("%s after attempt 1, 2, …; jitter %s%s", strings.Join(delays, " "), share(c.Jitter), ageText(c.MaxAgeMS))
}

func ageText(n int64) string {
	if n == 0 {
		return ""
	}
	return "; none later than " + ms(n) + " after the accept"
}

func concurrencyText(l Limits) string {
	text := count(l.Concurrency, "attempt") + " at the same time, for each Relay"
	if l.FleetConcurrency > 0 {
		text += fmt.Sprintf("; %d for all Relays together", l.FleetConcurrency)
	}
	return text + fmt.Sprintf("; %s of them for the newest events while older ones wait", share(l.FreshShare))
}

func rateText(l Limits) string {
	text := "none"
	if r := l.RateLimit; r != nil {
		text = fmt.Sprintf("%s per %s, bursts of %d, for all Relays together", count(r.Limit, "attempt"), ms(r.PerMS), r.Burst)
	}
	if l.ObeyRateHeaders {
		text += "; and what RateLimit and X-RateLimit-* headers of answers say"
	}
	return text
}

func batchText(b *Batch) string {
	text := fmt.Sprintf("up to %s or %s in one request (%s), waits %s for more; when it is refused ",
		count(b.MaxEvents, "event"), config.FormatSize(b.MaxBytes), b.Format, ms(b.MaxWaitMS))
	if b.OnRefused == "retry" {
		return text + "it is retried"
	}
	return text + "each goes alone"
}

func breakerText(b *Breaker) string {
	if b == nil {
		return "none"
	}
	return fmt.Sprintf("opens when %s of at least %s in %s fail (%s); for %s, with each failed probe longer, up to %s; closes after %s",
		share(b.FailureRatio), count(b.MinAttempts, "attempt"), ms(b.WindowMS), strings.Join(b.On, " "), ms(b.OpenMS), ms(b.MaxOpenMS),
		count(b.Probes, "good probe"))
}

func disableText(d Disable) string {
	var when []string
	if d.OnGone {
		when = append(when, "at an answer 410")
	}
	if d.AfterFailingMS > 0 {
		when = append(when, "after "+ms(d.AfterFailingMS)+" without an attempt that went well")
	}
	if len(when) == 0 {
		return "never"
	}
	return strings.Join(when, ", ")
}

func tlsText(t *TLS) string {
	if t == nil {
		return "none: the URL begins with http://"
	}
	text := t.MinVersion + " or newer; authorities of "
	if t.CA == "" {
		text += "the system"
	} else {
		text += "a file of its own (" + t.CA + ")"
	}
	if t.Client != "" {
		text += "; client certificate " + t.Client
	}
	if t.ServerName != "" {
		text += "; the receiver's certificate is for " + t.ServerName
	}
	return text
}

// share is a part of 1 in percent.
func share(f float64) string { return strconv.FormatFloat(f*100, 'g', 4, 64) + " %" }

func egressText(e Egress) string {
	allowed := append([]string{"public addresses"}, e.AllowPrivate...)
	text := "allowed"
	switch e.Verdict {
	case "denied":
		return "denied: " + e.Why + "; each attempt would fail with egress_denied"
	case "when_dialled":
		text = "the name's address is judged when it is dialled; allowed are " + strings.Join(allowed, ", ")
	}
	if len(e.Ports) > 0 {
		text += ", ports " + strings.Trim(fmt.Sprint(e.Ports), "[]")
	}
	return text
}

// printable replaces characters that could control a terminal by JSON escapes. They occur only in
// strings, so the meaning stays.
func printable(body string) string {
	var b strings.Builder
	for _, r := range body {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}

// count is "1 secret", "2 secrets".
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

func ms(n int64) string { return config.FormatDuration(time.Duration(n) * time.Millisecond) }

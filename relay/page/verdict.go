package page

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"relay/relay/admin"
	"relay/relay/page/show"
)

// verdict says in plain words how a delivery stands, why, and who can do something about it.
type verdict struct {
	Headline string
	Answer   string // what the receiver answered, and how fast; "" if it did not
	Code     string // why, as the log has it; "" if nothing is wrong
	Reason   string // what the code means, and what to do
	Side     string // where to look: receiver, network, file, relay, operator; "" if nothing is wrong
	Error    string // of the last attempt, as the program says it
	Said     string // the beginning of the receiver's answer, if it is text

	Wait     string // what a pending delivery waits for beside its schedule, "" for nothing
	Why      string // of the endpoint's state, by who changed it
	Endpoint *admin.Endpoint
}

// judge makes the verdict of a delivery.
func (c *call) judge(d *admin.DeliveryWhole) verdict {
	v := verdict{Code: d.Code, Error: d.Error}
	if isOpen(&d.Delivery) {
		var e admin.Endpoint
		if err := c.get(escaped("/v1/endpoints/%s", d.Endpoint), nil, &e); err == nil {
			v.Endpoint, v.Why = &e, e.Reason
		}
	}
	v.Wait = c.waits(d)
	v.Headline = c.headline(d, v.Endpoint)
	if last := d.Last; last != nil && last.Status != 0 {
		v.Answer = c.t("delivery.answered", c.called(d.Endpoint), strconv.Itoa(last.Status), show.Lang(c.lang).Duration(last.TookMS))
	}
	if v.Code != "" {
		v.Reason, v.Side = codeText(c.words(), v.Code), sideOf(v.Code)
	}
	if n := len(d.History); n > 0 && d.State != "delivered" && d.History[n-1].Response != nil {
		if body, _, _ := plainBody(d.History[n-1].Response); utf8.Valid(body) {
			v.Said = beginning(string(body), 300)
		}
	}
	return v
}

// headline is the state in a sentence.
func (c *call) headline(d *admin.DeliveryWhole, e *admin.Endpoint) string {
	n := strconv.Itoa(d.Attempts)
	switch d.State {
	case "delivered":
		return c.nth("say.delivered", n)
	case "held":
		if e != nil && c.p.texts.has("say.held."+e.State) {
			return c.t("say.held."+e.State, c.called(d.Endpoint))
		}
		return c.t("say.held")
	case "pending":
		switch {
		case d.Attempts == 0:
			return c.t("say.pending.first")
		case d.MaxAttempts > d.Attempts:
			return c.t("say.pending.of", n, strconv.Itoa(d.MaxAttempts))
		}
		return c.t("say.pending", n)
	case "failed":
		return c.headlineOfFailed(d, n)
	}
	if d.Code == "erased_by_operator" {
		return c.t("say.discarded.erased")
	}
	return c.t("say.discarded")
}

func (c *call) headlineOfFailed(d *admin.DeliveryWhole, n string) string {
	outcome := ""
	if len(d.History) > 0 {
		outcome = d.History[len(d.History)-1].Outcome
	}
	switch {
	case d.Attempts == 0:
		return c.t("say.failed.before")
	case outcome == "gone":
		return c.t("say.failed.gone")
	case outcome == "refused":
		return c.nth("say.failed.refused", n)
	}
	return c.nth("say.failed", n)
}

// nth is a text about the attempt of a number; the first one has a text of its own.
func (c *call) nth(key, n string) string {
	if n == "1" {
		return c.t(key + ".first")
	}
	return c.t(key, n)
}

// waits says what holds up a pending delivery beside its schedule.
func (c *call) waits(d *admin.DeliveryWhole) string {
	if d.State != "pending" || !c.p.texts.has("wait."+d.Waits) {
		return ""
	}
	return c.t("wait."+d.Waits, c.called(d.Endpoint))
}

// sideOf is where to look for the cause of a code.
func sideOf(code string) string {
	switch code {
	case "connect_timeout", "dns_not_found", "dns_failed", "connection_failed":
		return "network"
	case "egress_denied", "when_error", "body_error", "too_expensive":
		return "file"
	case "panic", "no_socket", "busy":
		return "relay"
	case "discarded_by_operator", "erased_by_operator":
		return "operator"
	}
	return "receiver"
}

// codeText says what a code of an attempt or a state means, and what to do. A status that has no text of its own has
// that of its class.
func codeText(texts words, code string) string {
	if key := "code." + code; texts.has(key) {
		return texts.text(key)
	}
	if status, is := strings.CutPrefix(code, "http_"); is && len(status) == 3 {
		if key := "code.http_" + status[:1] + "xx"; texts.has(key) {
			return texts.text(key, status)
		}
	}
	return code
}

// spaced is a code as words.
func spaced(code string) string { return strings.ReplaceAll(code, "_", " ") }

// beginning is at most n bytes of a text, without a part of a character, and without white space around.
func beginning(s string, n int) string {
	s = strings.TrimSpace(s)
	if len(s) <= n {
		return s
	}
	s = s[:n]
	for len(s) > 0 && !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + "…"
}

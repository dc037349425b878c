package page

import (
	"net/http"
	"strings"

	"relay/relay/admin"
	"relay/relay/page/show"
)

// bodyView is a payload or a body as it is shown.
type bodyView struct {
	show.Shown
	ID    string // of its element
	Bytes int64  // of all that there is
	Copy  string // what a copy is; "" if it is not text, or not all of it is shown
	Kept  bool   // only the beginning was kept

	Packed string // content coding that it came with; Bytes are those of what was unpacked. "" for none
	Link   string // where the whole of it is; "" for nowhere
}

// as is the body with another id; nil for nil.
func (b *bodyView) as(id string) *bodyView {
	if b == nil {
		return nil
	}
	other := *b
	other.ID = id
	return &other
}

func newBody(id string, raw []byte) *bodyView {
	b := &bodyView{Shown: show.Body(raw), ID: id, Bytes: int64(len(raw))}
	if b.UTF8 && !b.Truncated {
		b.Copy = string(raw)
	}
	return b
}

// responseBody is the body of an answer.
func responseBody(id string, r *admin.Response) *bodyView {
	body, packed, whole := plainBody(r)
	b := newBody(id, body)
	b.Kept, b.Packed = r.Truncated, packed
	if !whole { // of what was unpacked
		b.Copy, b.Truncated = "", b.Truncated || !r.Truncated
	}
	return b
}

// unsent are headers that curl makes itself.
func unsent(name string) bool {
	switch strings.ToLower(name) {
	case "host", "content-length", "connection", "accept-encoding", "transfer-encoding":
		return true
	}
	return false
}

// curl is a command that repeats a request, for a shell as POSIX has it. Headers with a secret or a signature are left
// out, so that a receiver that verifies them refuses it.
func curl(r *admin.SentRequest) string {
	if strings.ContainsRune(r.Body.Text, 0) {
		return "" // no argument holds it
	}
	var b strings.Builder
	b.WriteString("curl --globoff --request " + quoteShell(r.Method) + " " + quoteShell(strings.TrimSuffix(r.URL, "?***")))
	for _, h := range r.Headers {
		if strings.Contains(h.Value, "***") || unsent(h.Name) {
			continue
		}
		line := h.Name + ": " + h.Value
		if h.Value == "" {
			line = h.Name + ";" // curl's way to send an empty one
		}
		b.WriteString(" \\\n  --header " + quoteShell(line))
	}
	b.WriteString(" \\\n  --data-raw " + quoteShell(r.Body.Text))
	return b.String()
}

// quoteShell is a text as one word of a shell.
func quoteShell(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// eventData answers the data of an event as it came.
func (c *call) eventData() error {
	var e admin.EventWhole
	if err := c.get(escaped("/v1/events/%s", c.r.PathValue("id")), nil, &e); err != nil {
		return err
	}
	switch {
	case e.LeftOut:
		return &refusal{Status: http.StatusForbidden, Code: "forbidden", Detail: c.t("body.hidden"), Own: true}
	case !e.Erased.IsZero():
		return &refusal{Status: http.StatusNotFound, Code: "event_erased", Detail: c.t("event.erased.about"), Own: true}
	}
	c.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = c.w.Write(e.Data) // the client has gone
	return nil
}

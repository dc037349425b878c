package page

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"relay/internal/sorting"
	"relay/relay/admin"
	"relay/relay/explain"
)

// explainView is the data of the screen that shows what would become of an event.
type explainView struct {
	Text      string // of the event
	Rows      int    // of the field that has it
	Endpoint  string // the only one that is asked about; "" for all
	Endpoints []string

	Problem *refusal // of the event
	Place   *place   // of the problem; nil if it has none

	Result *explain.Explanation // nil if nothing was asked yet
	Shown  []explained          // those that get it first, then those that may, or fail
	Others []explained          // that do not get it
	Rest   int64                // how many those are
	Gets   int64                // how many endpoints get it
}

// place is where something is wrong in a text.
type place struct {
	Line, Column int // from 1; columns are characters
	Text         string
}

// explained is an endpoint's part of an explanation, as it is shown.
type explained struct {
	explain.Endpoint
	Class  string // of its state
	Word   string // what becomes of the event there
	Reason string // why
	Said   string // what the filters say, in English; "" for nothing
	Body   *bodyView
	Signed []string
	Facts  []fact // what bounds attempts
}

func (c *call) showExplain() error {
	if err := c.need(admin.Payload); err != nil {
		return err
	}
	if !c.whole() {
		return c.lost()
	}
	v := explainView{Endpoints: c.endpointNames(), Endpoint: c.r.URL.Query().Get("endpoint")}
	var err error
	if v.Text, err = c.eventToExplain(); err != nil {
		return err
	}
	v.Rows = rowsOf(v.Text)
	c.show(http.StatusOK, "explain", c.t("layout.explain"), v)
	return nil
}

// rowsOf is the height of a field for a text.
func rowsOf(text string) int { return min(max(strings.Count(text, "\n")+2, 10), 28) }

func (c *call) explain() error {
	if err := c.parseForm(); err != nil {
		return err
	}
	v := explainView{Text: strings.ReplaceAll(c.r.PostForm.Get("event"), "\r\n", "\n"), Endpoint: c.r.PostForm.Get("endpoint"), Endpoints: c.endpointNames()}
	v.Rows = rowsOf(v.Text)
	q := url.Values{}
	if v.Endpoint != "" {
		q.Set("endpoint", v.Endpoint)
	}
	var out explain.Explanation
	status := http.StatusOK
	if err := c.ask(http.MethodPost, "/v1/explain", q, json.RawMessage(v.Text), &out); err != nil {
		v.Problem = c.refusalOf(err)
		if status = v.Problem.Status; status == http.StatusForbidden || status == http.StatusUnauthorized || status >= http.StatusInternalServerError {
			return err
		}
		v.Place = placeOf(v.Text, v.Problem)
	} else {
		v.Result = &out
		for i := range out.Endpoints {
			v.put(c.explained(&out.Endpoints[i]))
		}
		order := []string{"ok", "held", "wait", "bad", "off"}
		sorting.Stable(v.Shown, func(a, b explained) int { return slices.Index(order, a.Class) - slices.Index(order, b.Class) })
	}
	c.show(status, "explain", c.t("layout.explain"), v)
	return nil
}

// put takes an endpoint into the list where it belongs.
func (v *explainView) put(e explained) {
	if e.Gets {
		v.Gets++
	}
	if e.Class == "off" && v.Endpoint == "" {
		v.Others, v.Rest = append(v.Others, e), v.Rest+1
		return
	}
	v.Shown = append(v.Shown, e)
}

// reason says why the patterns of an endpoint decided so, and in English what its filters say beside.
func (c *call) reason(e *explain.Endpoint) (reason, said string) {
	patterns, said, _ := strings.Cut(e.Why, "; ")
	fits, no := strings.CutPrefix(patterns, "no pattern fits: ")
	switch {
	case patterns == "it gets all events":
		reason = c.t("explain.why.all")
	case e.Pattern != "" && patterns == "pattern "+e.Pattern:
		reason = c.t("explain.why.pattern", e.Pattern)
	case e.Pattern != "" && patterns == "excluded by "+e.Pattern:
		reason = c.t("explain.why.excluded", e.Pattern)
	case no:
		reason = c.t("explain.why.none", fits)
	default:
		return c.t("explain.why.filter"), e.Why
	}
	return reason, said
}

// eventToExplain is the event that the form begins with: a stored one, the example of a type, or a made-up one.
func (c *call) eventToExplain() (string, error) {
	q := c.r.URL.Query()
	if id := q.Get("event"); id != "" {
		var e admin.EventWhole
		if err := c.get(escaped("/v1/events/%s", id), nil, &e); err != nil {
			return "", err
		}
		return eventText(e.EventRef, e.Data), nil
	}
	var list admin.TypeList
	if err := c.get("/v1/types", nil, &list); err != nil {
		return "", err
	}
	wanted := q.Get("type")
	for i := range list.Types {
		if t := &list.Types[i]; wanted == t.Type || wanted == "" && len(t.Example) > 0 {
			return eventText(admin.EventRef{Type: t.Type}, t.Example), nil
		}
	}
	if wanted == "" {
		wanted = "order.created"
		if len(list.Types) > 0 {
			wanted = list.Types[0].Type
		}
	}
	return eventText(admin.EventRef{Type: wanted}, nil), nil
}

// eventText is an event as ingest takes it, for people. Numbers of the data stay as they are.
func eventText(e admin.EventRef, data json.RawMessage) string {
	if len(data) == 0 {
		data = json.RawMessage(`{}`)
	}
	out := struct {
		Type   string          `json:"type"`
		ID     string          `json:"id,omitempty"`
		Tenant string          `json:"tenant,omitempty"`
		Key    string          `json:"key,omitempty"`
		Data   json.RawMessage `json:"data"`
	}{e.Type, e.ID, e.Tenant, e.Key, data}
	var compact, pretty bytes.Buffer
	to := json.NewEncoder(&compact)
	to.SetEscapeHTML(false)
	if to.Encode(out) != nil || json.Indent(&pretty, bytes.TrimSpace(compact.Bytes()), "", "  ") != nil {
		return "" // data of an answer is JSON
	}
	return pretty.String()
}

// placeOf is where a refusal points to in the text of an event; nil if it points nowhere.
func placeOf(text string, r *refusal) *place {
	at := -1
	if r.Offset != nil {
		at = *r.Offset
	} else if r.Field != "" {
		at = offsetOf(text, jsontext.Pointer("/"+r.Field+r.Pointer))
	}
	if at < 0 || at > len(text) {
		return nil
	}
	begin := strings.LastIndexByte(text[:at], '\n') + 1
	line, _, _ := strings.Cut(text[begin:], "\n")
	return &place{Line: strings.Count(text[:at], "\n") + 1, Column: utf8.RuneCountInString(text[begin:at]) + 1, Text: beginning(line, 200)}
}

// offsetOf is the offset of the member or element at a pointer (RFC 6901); -1 if it is not there.
func offsetOf(text string, p jsontext.Pointer) int {
	d := jsontext.NewDecoder(strings.NewReader(text))
	for {
		before := int(d.InputOffset())
		if _, err := d.ReadToken(); err != nil {
			return -1
		}
		if d.StackPointer() == p {
			rest := text[before:]
			return before + len(rest) - len(strings.TrimLeft(rest, " \t\r\n,:"))
		}
	}
}

func (c *call) explained(e *explain.Endpoint) explained {
	v := explained{Endpoint: *e}
	key := "no"
	switch {
	case e.WhenError != "":
		v.Class, key = "bad", "fails"
	case e.Sends != nil && e.Sends.BodyError != "":
		v.Class, key = "bad", "fails"
	case e.Held:
		v.Class, key = "held", "held"
	case e.OutboxDecides:
		v.Class, key = "wait", "maybe"
	case e.Gets:
		v.Class, key = "ok", "yes"
	default:
		v.Class = "off"
	}
	v.Word = c.t("explain." + key)
	v.Reason, v.Said = c.reason(e)
	if r := e.Sends; r != nil && r.BodyError == "" {
		v.Body = newBody("body-"+e.Name, []byte(r.Body))
		for _, s := range r.Signed {
			v.Signed = append(v.Signed, s.Scheme)
		}
	}
	if e.Plan != nil {
		v.Facts = c.planFacts(e.Plan)
		if slices.Contains(e.Plan.Hidden, "retry") {
			without := *e.Plan
			without.Attempts = nil
			v.Plan = &without
		}
	}
	return v
}

package page

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"relay/relay/admin"
)

func auditRoutes() []route {
	return []route{{pattern: "GET /audit", whole: true, do: (*call).listAudit}}
}

// auditList is the data of the screen.
type auditList struct {
	Asked   url.Values
	Kept    []keptCondition // further verbs
	Verbs   []string        // that can be asked for
	Some    bool            // any condition is set
	Problem *refusal        // of the filter
	Items   []auditView
	Next    string // address of the next page
	First   bool
}

// auditView is a change for people.
type auditView struct {
	admin.AuditEntry
	Kind    string // of what was changed: endpoint, delivery, event, job, tenant, configuration; "" for another
	Name    string
	Link    string // to it, if it has a screen
	Revoke  string // id of a link that was made and may hold; "" for none
	Changes []changedValue
	Stays   bool // what has no value after the change is as it was: a delivery that was sent again
}

// changedValue is a value before and after a change, as text. One that is not there is nil.
type changedValue struct {
	Path          string
	Before, After *string
}

func (c *call) listAudit() error {
	q := listQuery(c.r.URL.Query())
	data := auditList{Asked: q, First: !q.Has("cursor"), Verbs: []string{"pause", "resume", "enable", "disable", "retry", "redeliver", "discard", "erase", "cancel", "test", "endpoints", "secret", "link", "reload"}}
	for name := range q {
		data.Some = data.Some || name != "cursor" && name != "limit"
	}
	if verbs := q["verb"]; len(verbs) > 1 {
		for _, verb := range verbs[1:] {
			data.Kept = append(data.Kept, keptCondition{"verb", verb})
		}
	}
	ask := maps.Clone(q)
	ask.Set("limit", "50")
	var list admin.AuditList
	if err := c.get("/v1/audit", ask, &list); err != nil {
		if data.Problem = c.refusalOf(err); data.Problem.Status != http.StatusBadRequest {
			return err
		}
		c.show(data.Problem.Status, "audit", c.t("layout.audit"), data)
		return nil
	}
	gone := map[string]bool{} // links that later lines take back
	for _, e := range list.Items {
		v := auditOf(e, c.p.Now())
		made := linkOf(e)
		if e.Verb == "link revoke" {
			gone[e.What+" for "+made.For] = true
		}
		if gone["link "+made.ID+" for "] || gone[e.What+" for "] || gone[e.What+" for "+made.For] {
			v.Revoke = ""
		}
		data.Items = append(data.Items, v)
	}
	if list.Next != nil {
		next := maps.Clone(q)
		next.Set("cursor", *list.Next)
		data.Next = "/audit?" + next.Encode()
	}
	c.show(http.StatusOK, "audit", c.t("layout.audit"), data)
	return nil
}

func auditOf(e admin.AuditEntry, now time.Time) auditView {
	v := auditView{AuditEntry: e, Name: e.What, Changes: changesOf(e.Before, e.After), Stays: e.Verb == "redeliver"}
	if made := linkOf(e); e.Verb == "link" && made.Expires.After(now) {
		v.Revoke = made.ID
	}
	kind, name, two := strings.Cut(e.What, " ")
	if !two && (strings.HasPrefix(e.Verb, "endpoints ") || strings.HasPrefix(e.Verb, "secret ")) {
		kind, name, two = "endpoint", e.What, true
	}
	screens := map[string]string{"endpoint": "/endpoints/%s", "delivery": "/deliveries/%s", "event": "/events/%s", "job": "/jobs/%s"}
	switch {
	case two && screens[kind] != "":
		id, _, _ := strings.Cut(name, ":") // "job ID: done"
		v.Kind, v.Name, v.Link = kind, name, escaped(screens[kind], id)
	case two && kind == "tenant":
		v.Kind, v.Name = kind, name
	case e.What == "configuration":
		v.Kind, v.Name, v.Link = e.What, "", "/config"
	}
	return v
}

// auditedLink is what the audit has of a link that was made, and of links that were taken back.
type auditedLink struct {
	ID, For string
	Expires time.Time
}

func linkOf(e admin.AuditEntry) (l auditedLink) {
	if json.Unmarshal(e.After, &l) != nil {
		return auditedLink{}
	}
	return l
}

// changesOf are the values that differ, by path.
func changesOf(before, after json.RawMessage) []changedValue {
	old, now := flat(before), flat(after)
	paths := map[string]bool{}
	for path := range old {
		paths[path] = true
	}
	for path := range now {
		paths[path] = true
	}
	var all []changedValue
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		v := changedValue{Path: path}
		if text, has := old[path]; has {
			v.Before = &text
		}
		if text, has := now[path]; has {
			v.After = &text
		}
		if v.Before == nil || v.After == nil || *v.Before != *v.After {
			all = append(all, v)
		}
	}
	return all
}

const flatDepth = 4 // of objects whose members are shown one by one

// flat is the values of a JSON text by their path; numbers stay as they came.
func flat(text json.RawMessage) map[string]string {
	all := map[string]string{}
	if len(text) == 0 {
		return all
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if d.Decode(&v) == nil {
		flatten(all, "", v, flatDepth)
	}
	return all
}

func flatten(all map[string]string, path string, v any, depth int) {
	object, is := v.(map[string]any)
	if !is || depth == 0 {
		if text := shortJSON(v); text != "" {
			all[path] = text
		}
		return
	}
	for name, member := range object {
		to := name
		if path != "" {
			to = path + "." + name
		}
		flatten(all, to, member, depth-1)
	}
}

// shortJSON is a value on one line; lists of texts without brackets. What is empty is "".
func shortJSON(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case json.Number:
		return v.String()
	case []any:
		var parts []string
		for _, item := range v {
			parts = append(parts, shortJSON(item))
		}
		return strings.Join(parts, ", ")
	}
	text, _ := json.Marshal(v) // it came from JSON
	return string(text)
}

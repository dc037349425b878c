package admin

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"relay/ingest/problem"
)

// The audit can be asked for by who, verb, what and time; pages go on where the one before ended.
func TestAuditFilter(t *testing.T) {
	o := newOperator(t)
	for _, verb := range []string{"pause", "resume", "disable", "enable", "pause"} {
		done[Endpoint](o, 200, "POST", "/v1/endpoints/billing/"+verb, "")
	}
	who := o.audits()[0].Who
	numbers := func(query string) string {
		t.Helper()
		var all []uint64
		for path := "/v1/audit?" + query; ; {
			list := done[AuditList](o, 200, "GET", path, "")
			for _, e := range list.Items {
				all = append(all, e.N)
			}
			if list.Next == nil {
				return fmt.Sprint(all)
			}
			path = "/v1/audit?" + query + "&cursor=" + *list.Next
		}
	}
	for query, want := range map[string]string{
		"verb=pause": "[5 1]", "verb=pause&limit=1": "[5 1]", "verb=pause&verb=enable": "[5 4 1]", "verb=paus": "[]",
		"what=BILL&limit=3": "[5 4 3 2 1]", "what=endpoint+billing": "[5 4 3 2 1]", "what=shop": "[]",
		"who=" + url.QueryEscape(strings.ToUpper(who)): "[5 4 3 2 1]", "who=nobody": "[]",
		"since=1h": "[5 4 3 2 1]", "until=1h": "[]", "since=2100-01-01T00:00:00Z": "[]", "until=0s&verb=resume": "[2]",
	} {
		if got := numbers(query); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
}

func TestAudit(t *testing.T) {
	o := newOperator(t)
	for _, verb := range []string{"pause", "resume", "disable", "enable"} {
		done[Endpoint](o, 200, "POST", "/v1/endpoints/billing/"+verb, "")
		e := o.lastAudit(verb, "endpoint billing")
		if !strings.Contains(string(e.Before), "state") || !strings.Contains(string(e.After), "state") {
			t.Errorf("audit of %s: %+v", verb, e)
		}
	}
	before := len(o.audits())
	o.options.Reload = func(context.Context) (Reloaded, error) {
		return Reloaded{Generation: 8, Changed: []string{"billing"}, Lines: slices.Repeat([]string{strings.Repeat("x", 100)}, 1000)}, nil
	}
	done[Reloaded](o, 200, "POST", "/v1/reload", "")
	if e := o.lastAudit("reload", "configuration"); !strings.Contains(string(e.Before), `"generation":7`) || !strings.Contains(string(e.After), `"changed":["billing"]`) || !strings.Contains(string(e.After), "and 970 lines more") {
		t.Errorf("audit of a reload: %+v", e)
	}
	o.options.Reload = func(context.Context) (Reloaded, error) { return Reloaded{Generation: 8}, nil }
	done[Reloaded](o, 200, "POST", "/v1/reload", "") // nothing was changed
	if n := len(o.audits()); n != before+1 {
		t.Errorf("%d entries, want %d", n, before+1)
	}

	var seen []uint64
	path := "/v1/audit?limit=2"
	for {
		list := done[AuditList](o, 200, "GET", path, "")
		for _, e := range list.Items {
			seen = append(seen, e.N)
		}
		if list.Next == nil {
			break
		}
		path = "/v1/audit?limit=2&cursor=" + *list.Next
	}
	if fmt.Sprint(seen) != "[5 4 3 2 1]" {
		t.Errorf("entries: %v", seen)
	}
	for query, want := range map[string]struct {
		code  problem.Code
		field string
	}{
		"limit=0": {problem.InvalidParameter, "limit"}, "limit=101": {problem.InvalidParameter, "limit"}, "limit=x": {problem.InvalidParameter, "limit"},
		"limit=1&limit=2": {problem.InvalidParameter, "limit"}, "cursor=x": {problem.InvalidCursor, "cursor"}, "cursor=0": {problem.InvalidCursor, "cursor"},
		"cursor=-1": {problem.InvalidCursor, "cursor"}, "whom=x": {problem.UnknownParameter, "whom"}, "who=": {problem.InvalidParameter, "who"}, "what=a&what=b": {problem.InvalidParameter, "what"}, "since=yesterday": {problem.InvalidParameter, "since"}, "until=x": {problem.InvalidParameter, "until"},
	} {
		o.refuses(400, want.code, want.field, "GET", "/v1/audit?"+query, "")
	}
}

package query

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"relay/ingest/problem"
	"relay/internal/testkit/golden"
	"relay/outbox"
)

var now = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func parser() Parser {
	return Parser{Now: now, Indexed: func(path string) bool { return path == "data.deviceId" || path == "data.scene" }}
}

// surroundings: a is paused, gone is removed, and a and b are of one project.
var surroundings = Surroundings{
	Held: func(context.Context) ([]string, error) { return []string{"a", "gone"}, nil },
	Labelled: func(name, value string) []string {
		return map[string][]string{"project=web": {"a", "b"}}[name+"="+value]
	},
}

func read(t *testing.T, text string, use Use) *Query {
	t.Helper()
	values, err := url.ParseQuery(text)
	if err != nil {
		t.Fatal(err)
	}
	q, err := parser().Values(values, use)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return q
}

func TestFilter(t *testing.T) {
	yes := true
	for _, c := range []struct {
		text string
		want outbox.Query
	}{
		{"", outbox.Query{}},
		{"endpoint=a&endpoint=c", outbox.Query{Filter: outbox.Filter{Endpoints: []string{"a", "c"}}}},
		{"state=success", outbox.Query{Filter: outbox.Filter{States: []outbox.State{outbox.Delivered}}}},
		{"state=success&state=delivered&state=failed", outbox.Query{Filter: outbox.Filter{States: []outbox.State{outbox.Delivered, outbox.Failed}}}},
		{"state=held", outbox.Query{Filter: outbox.Filter{States: []outbox.State{outbox.Pending}, Endpoints: []string{"a", "gone"}}}},
		{"state=held&endpoint=b&endpoint=gone", outbox.Query{Filter: outbox.Filter{States: []outbox.State{outbox.Pending}, Endpoints: []string{"gone"}}}},
		{"state=held&endpoint=b", outbox.Query{Filter: outbox.Filter{States: []outbox.State{outbox.Pending}, Endpoints: []string{}}}},
		{"state=pending", outbox.Query{Filter: outbox.Filter{States: []outbox.State{outbox.Pending}, Except: []string{"a", "gone"}}}},
		{"state=pending&state=held", outbox.Query{Filter: outbox.Filter{States: []outbox.State{outbox.Pending}}}},
		{"state=pending&state=held&state=failed", outbox.Query{Filter: outbox.Filter{States: []outbox.State{outbox.Pending, outbox.Failed}}}},
		{"type=a.b&type=c", outbox.Query{Filter: outbox.Filter{Types: []string{"a.b", "c"}}}},
		{"event=evt_1&tenant=x&tenant=y&key=k", outbox.Query{Filter: outbox.Filter{Event: "evt_1", Tenants: []string{"x", "y"}, Key: "k"}}},
		{"label.project=web", outbox.Query{Filter: outbox.Filter{Endpoints: []string{"a", "b"}}}},
		{"label.project=web&endpoint=b&endpoint=c", outbox.Query{Filter: outbox.Filter{Endpoints: []string{"b"}}}},
		{"label.project=nothing", outbox.Query{Filter: outbox.Filter{Endpoints: []string{}}}},
		{"status=503", outbox.Query{Filter: outbox.Filter{Status: outbox.Range{Min: 503, Max: 503}}}},
		{"status=5xx", outbox.Query{Filter: outbox.Filter{Status: outbox.Range{Min: 500, Max: 599}}}},
		{"status=%3E%3D400", outbox.Query{Filter: outbox.Filter{Status: outbox.Range{Min: 400}}}},
		{"status=%3C%3D499", outbox.Query{Filter: outbox.Filter{Status: outbox.Range{Min: 100, Max: 499}}}},
		{"attempts=3&code=http_503&manual=true", outbox.Query{Filter: outbox.Filter{Attempts: outbox.Range{Min: 3, Max: 3}, Code: "http_503", Manual: &yes}}},
		{"resent=true", outbox.Query{Filter: outbox.Filter{Resent: &yes}}},
		{"attempts=0", outbox.Query{Filter: outbox.Filter{Attempts: outbox.Range{Max: -1}}}},
		{"attempts=%3C%3D0", outbox.Query{Filter: outbox.Filter{Attempts: outbox.Range{Max: -1}}}},
		{"attempts=%3E%3D0", outbox.Query{}},
		{"attempts=%3E%3D3", outbox.Query{Filter: outbox.Filter{Attempts: outbox.Range{Min: 3}}}},
		{"attempts=%3C%3D3", outbox.Query{Filter: outbox.Filter{Attempts: outbox.Range{Max: 3}}}},
		{"since=2h&until=30m", outbox.Query{Filter: outbox.Filter{Accepted: outbox.Span{Since: now.Add(-2 * time.Hour), Until: now.Add(-30 * time.Minute)}}}},
		{"since=2026-01-31T12:00:00%2B01:00", outbox.Query{Filter: outbox.Filter{Accepted: outbox.Span{Since: now.Add(-time.Hour)}}}},
		{"attempted_since=1d&attempted_until=1h", outbox.Query{Filter: outbox.Filter{Attempted: outbox.Span{Since: now.Add(-24 * time.Hour), Until: now.Add(-time.Hour)}}}},
		{"data.deviceId=cam-7&data.scene=2", outbox.Query{Filter: outbox.Filter{Fields: []outbox.Field{{Path: "data.deviceId", Value: "cam-7"}, {Path: "data.scene", Value: "2"}}}}},
		{"order=oldest&limit=100&offset=10000", outbox.Query{Oldest: true, Limit: 100, Offset: 10000}},
		{"order=newest&limit=1&offset=0", outbox.Query{Limit: 1}},
	} {
		if c.want.Limit == 0 {
			c.want.Limit = 20
		}
		got, err := read(t, c.text, Lists).Page(context.Background(), surroundings)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, got, cmpopts.EquateComparable(outbox.State(""))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.text, diff)
		}
	}
}

func TestPatternsOfTypes(t *testing.T) {
	f, err := read(t, "type=invoice.*&type=!invoice.draft", Lists).Filter(context.Background(), surroundings)
	if err != nil || f.Types != nil {
		t.Fatal(err, f.Types)
	}
	for name, want := range map[string]bool{"invoice.paid": true, "invoice.draft": false, "invoice": false, "customer.paid": false} {
		if f.TypeLike(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
	q := read(t, "type=a&type=b", Stats)
	if !q.TypeLike("a") || q.TypeLike("c") || !read(t, "", Stats).TypeLike("c") {
		t.Error("types of statistics")
	}
}

// A filter in which nothing depends on the moment asks for nothing.
func TestSurroundingsMayBeMissing(t *testing.T) {
	if _, err := read(t, "state=failed&state=pending&state=held", Lists).Filter(context.Background(), Surroundings{}); err != nil {
		t.Error(err)
	}
	down := errors.New("down")
	s := Surroundings{Held: func(context.Context) ([]string, error) { return nil, down }}
	if _, err := read(t, "state=held", Lists).Filter(context.Background(), s); !errors.Is(err, down) {
		t.Error(err)
	}
}

// Each bad value is refused with a code, the name of the parameter and what to do. The answers
// are in testdata/errors.txt.
func TestBadValues(t *testing.T) {
	long := strings.Repeat("x", 300)
	var out strings.Builder
	for _, c := range []struct {
		use  Use
		text string
	}{
		{Lists, "endpoint="}, {Lists, "endpoint=" + long},
		{Lists, "state=faild"}, {Lists, "state=x"}, {Lists, "state=held&state=failed"}, {Lists, "state=pending&state=delivered"},
		{Lists, "type=invo*"}, {Lists, "type=a..b"}, {Lists, "type=%C3%A9"}, {Lists, "type=!"},
		{Lists, "event=dlv_1"}, {Lists, "event=a.b"}, {Lists, "event=a&event=b"},
		{Lists, "tenant=%00"}, {Lists, "tenant=%FF"}, {Lists, "key=%0A"}, {Lists, "key=a&key=b"},
		{Lists, "label.project=%07"}, {Lists, "label.=x"}, {Lists, "label=x"},
		{Lists, "status=0"}, {Lists, "status=6xx"}, {Lists, "status=xx"}, {Lists, "status=>500"}, {Lists, "status=>=<=500"}, {Lists, "status=-503"}, {Lists, "status=600"},
		{Lists, "code=HTTP_503"}, {Lists, "code=http 503"},
		{Lists, "attempts=-1"}, {Lists, "attempts=>=x"}, {Lists, "attempts=+3"}, {Lists, "attempts=9999999999"},
		{Lists, "manual=yes"}, {Lists, "manual=TRUE"},
		{Lists, "resent=no"}, {Tail, "resent=true"}, {Lists, "since=yesterday"}, {Lists, "since=2026-01-31"}, {Lists, "since=2026-01-31T12:00:00+01:00"}, {Lists, "since=-2h"}, {Lists, "since=0001-01-01T00:00:00Z"}, {Lists, "until=300y"}, {Lists, "since=9999-12-31T23:59:59-01:00"},
		{Lists, "since=1h&until=2h"}, {Lists, "since=1h&until=1h"}, {Lists, "attempted_since=1h&attempted_until=2h"}, {Lists, "attempted_since=soon"}, {Lists, "attempted_until=3"},
		{Lists, "data.colour=red"}, {Lists, "data=red"}, {Lists, "data.=red"}, {Lists, "data." + long + "=red"}, {Lists, "data.deviceId=a&data.deviceId=b"},
		{Lists, "order=up"}, {Lists, "limit=0"}, {Lists, "limit=101"}, {Lists, "limit=all"}, {Lists, "offset=-1"}, {Lists, "offset=10001"}, {Lists, "total=no"},
		{Lists, "cursor=abc"}, {Lists, "cursor=zz.1.x"}, {Lists, "cursor=gp3sk5tc00.1.x"}, {Lists, "cursor=gp3sk5tc00.1"}, {Lists, "cursor=" + strings.Repeat("1", 20) + ".a.b"}, {Lists, "cursor=1." + long + long}, {Lists, "cursor=1.a."},
		{Lists, "statte=failed"}, {Lists, "=failed"}, {Lists, long + "=1"}, {Lists, "by=type"},
		{Bulk, "limit=5"}, {Bulk, "cursor=1.a.b"}, {Tail, "since=1h"}, {Tail, "rate=0"}, {Tail, "rate=fast"}, {Stats, "state=failed"}, {Stats, "by=code"}, {Stats, "step=minute"}, {Stats, "backlog=maybe"},
	} {
		values, err := url.ParseQuery(strings.ReplaceAll(c.text, "+", "%2B"))
		if strings.Contains(c.text, "+01:00") { // a plus that was not escaped
			values, err = url.ParseQuery(c.text)
		}
		if err != nil {
			t.Fatal(err)
		}
		_, err = parser().Values(values, c.use)
		refused, ok := errors.AsType[*Error](err)
		if !ok {
			t.Errorf("%s: is not refused: %v", c.text, err)
			continue
		}
		p := refused.Problem()
		if p.Status != 400 || p.Field == "" && c.text[0] != '=' || strings.Contains(p.Detail, long) {
			t.Errorf("%s: %+v", c.text, p)
		}
		fmt.Fprintf(&out, "%.60s\n\t%s %s: %s\n", c.text, p.Code, p.Field, p.Detail)
	}
	golden.Check(t, "testdata/errors.txt", out.String())
}

// Every parameter has an example that its route takes, and is one of the bad values.
func TestTable(t *testing.T) {
	text, err := os.ReadFile("testdata/errors.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range Params() {
		if !strings.Contains(string(text), "\n"+p.Name) && !strings.HasPrefix(string(text), p.Name) {
			t.Errorf("%s: no bad value of it is tested", p.Name)
		}
		name := p.Name
		switch name {
		case "data.":
			name += "deviceId"
		case "label.":
			name += "project"
		case "cursor":
			p.Example = read(t, "limit=5", Lists).Next("place")
		}
		if p.About == "" || p.Kind == "" || p.read == nil || p.Example == "" {
			t.Errorf("%s is not whole: %+v", p.Name, p)
		}
		for _, use := range []Use{Lists, Bulk, Tail, Stats} {
			_, err := parser().Values(url.Values{name: {p.Example}}, use)
			if (err == nil) != (p.Use&use != 0) {
				t.Errorf("%s for %d: %v", name, use, err)
			}
		}
	}
	if len(For(Bulk)) >= len(For(Lists)) {
		t.Error("a bulk route takes pages")
	}
}

func TestBody(t *testing.T) {
	q, rest, err := parser().Body([]byte(`{"endpoint":["a","b"],"status":503,"manual":true,"attempts":">=3","since":"2h","data.deviceId":7,"dry_run":true,"to":"c"}`), "dry_run", "to", "rate")
	if err != nil {
		t.Fatal(err)
	}
	if want := "attempts=%3E%3D3&data.deviceId=7&endpoint=a&endpoint=b&manual=true&since=2h&status=503"; q.Values().Encode() != want {
		t.Errorf("got %s", q.Values().Encode())
	}
	if len(rest) != 2 || string(rest["dry_run"]) != "true" || string(rest["to"]) != `"c"` {
		t.Errorf("rest is %v", rest)
	}
	if q.All() {
		t.Error("it selects all")
	}
	if q, _, err := parser().Body([]byte(" {} ")); err != nil || !q.All() {
		t.Error(err)
	}
	var out strings.Builder
	for _, body := range []string{
		"", " ", "[]", "7", "{", `{"endpoint":"a"}}`, `{"endpoint":"a","endpoint":"b"}`, `{"endpoint":"a"`, "{\"endpoint\":\"\xff\"}", `{"endpoint":"a" "b"}`,
		`{"endpoint":null}`, `{"endpoint":{}}`, `{"endpoint":[]}`, `{"endpoint":[null]}`, `{"endpoint":["a",["b"]]}`, `{"endpoint":""}`, `{"endpoint":[""]}`,
		`{"event":["a","b"]}`, `{"limit":5}`, `{"dryrun":true}`, `{"state":"faild"}`, `{"data.colour":"red"}`, `{"status":5.5e2}`,
	} {
		_, _, err := parser().Body([]byte(body), "dry_run")
		refused, ok := errors.AsType[*Error](err)
		if !ok {
			t.Errorf("%q: is not refused", body)
			continue
		}
		fmt.Fprintf(&out, "%q\n\t%s %s: %s\n", body, refused.Code, refused.Field, refused.Detail)
	}
	golden.Check(t, "testdata/bodies.txt", out.String())
}

// A filter means the same when it is read again: as a query string, and later with fixed times.
func TestRoundTrip(t *testing.T) {
	text := "endpoint=b&state=pending&type=a.*&since=2h&attempted_until=1m&until=2026-01-31T11:59:59.5Z&data.scene=1&label.project=web&limit=5"
	q := read(t, text, Lists)
	again := read(t, q.Values().Encode(), Lists)
	later := Parser{Now: now.Add(time.Hour)}
	fixed, err := later.Values(q.Fixed(), Lists)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := q.Page(context.Background(), surroundings)
	for _, other := range []*Query{again, fixed} {
		got, err := other.Page(context.Background(), surroundings)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(outbox.Filter{}, "TypeLike")); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if got := q.Values().Get("since"); got != "2h" {
		t.Errorf("since is %s", got)
	}
}

// The pages of a list have the bounds of the first one, and their cursors are of no other list.
func TestCursor(t *testing.T) {
	first := read(t, "since=2h&state=failed&limit=5", Lists)
	if first.Next("") != "" {
		t.Error("the last page has a next one")
	}
	next := first.Next("engine.1")
	p := Parser{Now: now.Add(time.Minute)}
	second, err := p.Values(url.Values{"since": {"2h"}, "state": {"failed"}, "limit": {"7"}, "cursor": {next}}, Lists)
	if err != nil {
		t.Fatal(err)
	}
	if second.Cursor != "engine.1" || !second.Span.Since.Equal(first.Span.Since) || second.Next("engine.2") != strings.Replace(next, "engine.1", "engine.2", 1) {
		t.Errorf("%+v", second)
	}
	if second.Values().Has("cursor") {
		t.Error("a filter has a place")
	}
	for name, values := range map[string]url.Values{
		"other filter":       {"since": {"3h"}, "state": {"failed"}, "cursor": {next}},
		"no filter":          {"cursor": {next}},
		"other order":        {"since": {"2h"}, "state": {"failed"}, "order": {"oldest"}, "cursor": {next}},
		"offset and cursor":  {"since": {"2h"}, "state": {"failed"}, "offset": {"0"}, "cursor": {next}},
		"engine's own place": {"since": {"2h"}, "state": {"failed"}, "cursor": {"engine.1"}},
	} {
		_, err := p.Values(values, Lists)
		refused, ok := errors.AsType[*Error](err)
		if !ok || name != "offset and cursor" && refused.Code != problem.InvalidCursor {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzValues(f *testing.F) {
	f.Add("endpoint=a&state=held&type=a.**&since=2h&data.deviceId=1&label.x=y&attempts=%3E%3D3&status=5xx", `{"endpoint":["a"],"status":5,"dry_run":1}`)
	f.Add("cursor=1.a.b&offset=1&limit=1&order=oldest", `{"data.deviceId":true}`)
	f.Add("by=type&step=week&until=2026-01-31T12:00:00Z", `[]`)
	f.Fuzz(func(t *testing.T, text, body string) {
		values, _ := url.ParseQuery(text)
		for _, use := range []Use{Lists, Bulk, Tail, Stats} {
			q, err := parser().Values(values, use)
			if err != nil {
				if refused, ok := errors.AsType[*Error](err); !ok || refused.Field == "" && refused.Code != problem.UnknownParameter || refused.Detail == "" || len(refused.Detail) > 1000 {
					t.Fatalf("%q: %v", text, err)
				}
				continue
			}
			// What was taken is taken again, and as a body.
			for _, again := range []url.Values{q.Values(), q.Fixed()} {
				if _, err := (Parser{Now: now}).Values(again, use); err != nil {
					t.Fatalf("%q: again: %v", text, err)
				}
			}
			if use == Bulk {
				sameBody(t, q)
			}
		}
		if _, _, err := parser().Body([]byte(body), "dry_run"); err != nil {
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Fatalf("%q: %v", body, err)
			}
		}
	})
}

func sameBody(t *testing.T, q *Query) {
	t.Helper()
	var body bytes.Buffer
	values := q.Values()
	if err := json.NewEncoder(&body).Encode(values); err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Collect(maps.Keys(values)) {
		if strings.ToValidUTF8(name, "") != name || slices.ContainsFunc(values[name], func(v string) bool { return strings.ToValidUTF8(v, "") != v }) {
			return // JSON cannot have it
		}
	}
	again, _, err := parser().Body(body.Bytes())
	if err != nil || again.Values().Encode() != values.Encode() {
		t.Fatalf("%s: %v", body.String(), err)
	}
}

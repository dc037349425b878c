package admin

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/outbox"
	"relay/outbox/outboxtest"
	"relay/outbox/sketch"
	"relay/relay/backlog"
	"relay/relay/query"
)

func TestStatistics(t *testing.T) {
	s := newSequel(t)
	got := ask[Statistics](t, s, "/v1/stats")
	total := got.Total
	if total.Ended != 2 || total.Delivered != 1 || total.Failed != 1 || total.Attempts != 3 || *total.SuccessRate != 0.5 || *total.FirstTryRate != 0 || *total.MeanAttempts != 1.5 {
		t.Errorf("total is %+v", total)
	}
	if want := (1.5 + 20 + 1000) / 3; math.Abs(total.TookMS.Mean-want) > 0.001 || math.Abs(total.TookMS.P50-20) > 0.4 || math.Abs(total.TookMS.P99-1000) > 20 {
		t.Errorf("took %+v", total.TookMS)
	}
	if total.Backlog.Count != (Total{N: 2}) || total.Backlog.AgeMS == nil || len(got.Rows) != 0 || got.PercentileError != 0.02 {
		t.Errorf("backlog %+v, %d rows", total.Backlog, len(got.Rows))
	}
	if since := time.Since(got.Since); since < 24*time.Hour || since > 25*time.Hour || got.Since.Minute() != 0 || time.Until(got.Until) <= 0 {
		t.Errorf("from %v to %v", got.Since, got.Until)
	}
}

func TestStatisticsRows(t *testing.T) {
	s := newSequel(t)
	names := func(path string) []string {
		var all []string
		for _, r := range ask[Statistics](t, s, path).Rows {
			name := "-"
			for _, p := range []*string{r.Endpoint, r.Type, r.Tenant} {
				if p != nil {
					name = *p
				}
			}
			backlog := ""
			if r.Backlog != nil {
				backlog = fmt.Sprintf(" backlog %d", r.Backlog.Count.N)
			}
			all = append(all, fmt.Sprintf("%s %d/%d%s", name, r.Delivered, r.Failed, backlog))
		}
		return all
	}
	for path, want := range map[string][]string{
		"/v1/stats?by=endpoint":                                  {"archive 0/0 backlog 1", "billing 1/0 backlog 0", "search 0/1 backlog 1"},
		"/v1/stats?by=endpoint&endpoint=billing":                 {"billing 1/0 backlog 0"},
		"/v1/stats?by=endpoint&label.project=web":                {"billing 1/0 backlog 0"},
		"/v1/stats?by=endpoint&step=hour":                        {"billing 1/0", "search 0/1"},
		"/v1/stats?by=type":                                      {"invoice.paid 1/1"},
		"/v1/stats?by=tenant":                                    {"acme 1/1"},
		"/v1/stats?by=type&type=invoice.*":                       {"invoice.paid 1/1"},
		"/v1/stats?by=type&type=customer.*":                      nil,
		"/v1/stats?step=month":                                   {"- 1/1"},
		"/v1/stats?step=week&endpoint=search":                    {"- 0/1"},
		"/v1/stats?step=day&tenant=acme":                         {"- 1/1"},
		"/v1/stats?step=day&since=2020-01-01T00:00:00Z&until=2d": nil,
	} {
		if diff := cmp.Diff(want, names(path)); diff != "" {
			t.Errorf("%s -want +got:\n%s", path, diff)
		}
	}
	if b := ask[Statistics](t, s, "/v1/stats?type=invoice.*").Total.Backlog; b.Count.N != 2 || b.AgeMS != nil {
		t.Errorf("backlog of a type: %+v", b)
	}
	if empty := ask[Statistics](t, s, "/v1/stats?endpoint=archive&since=1h&tenant=nobody").Total; empty.SuccessRate != nil || empty.TookMS != nil || empty.MeanAttempts != nil || empty.Backlog.Count.N != 0 || empty.Backlog.AgeMS != nil {
		t.Errorf("nothing is %+v", empty)
	}
}

// Steps have the largest backlog of their hours, where it is of all or of one endpoint. It is nothing that an access to a tenant sees.
func TestBacklogSteps(t *testing.T) {
	s := newSequel(t)
	var asked []string
	at := time.Date(2026, 3, 1, 22, 0, 0, 0, time.UTC)
	s.options.Backlogs = func(_ context.Context, span outbox.Span, endpoint string) ([]backlog.Hour, error) {
		asked = append(asked, endpoint+" "+span.Until.Sub(span.Since).String())
		return []backlog.Hour{{Start: at, Most: 3}, {Start: at.Add(time.Hour), Most: 9}, {Start: at.Add(2 * time.Hour), Most: 0}}, nil
	}
	const days = "&since=2026-03-01T00:00:00Z&until=2026-03-04T00:00:00Z"
	for path, want := range map[string]string{
		"step=day" + days: "[{1 9} {2 0}]", "step=day&endpoint=billing" + days: "[{1 9} {2 0}]", "step=month&backlog=false" + days: "[{1 9}]",
		"step=day&endpoint=billing&endpoint=search" + days: "[]", "step=day&type=a" + days: "[]", "step=day&tenant=acme" + days: "[]", "step=day&by=endpoint" + days: "[]", days[1:]: "[]",
		"step=day&label.project=web" + days: "[{1 9} {2 0}]", "step=day&label.project=none" + days: "[]",
	} {
		type step struct {
			Day  int
			Most int64
		}
		got := []step{}
		for _, b := range ask[Statistics](t, s, "/v1/stats?"+path).Backlogs {
			got = append(got, step{b.Start.Day(), b.Most})
		}
		if fmt.Sprint(got) != want {
			t.Errorf("%s: %v, want %s", path, got, want)
		}
	}
	slices.Sort(asked)
	if want := []string{" 72h0m0s", " 72h0m0s", "billing 72h0m0s", "billing 72h0m0s"}; !slices.Equal(asked, want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}
	for _, a := range []*Access{{May: []Right{Read}, Tenants: []string{"acme"}}, {May: []Right{Read}, Endpoints: []string{"billing", "search"}}} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/v1/stats?step=day", nil)
		New(s.options).ServeHTTP(w, r.WithContext(WithAccess(r.Context(), a)))
		if w.Code != 200 || strings.Contains(w.Body.String(), "backlogs") {
			t.Errorf("%+v sees %d %s", a, w.Code, w.Body)
		}
	}
	s.options.Backlogs = func(context.Context, outbox.Span, string) ([]backlog.Hour, error) { return nil, outbox.ErrUnavailable }
	refusedAt(t, s.options, "/v1/stats?step=day", 503)
}

func TestBadStatistics(t *testing.T) {
	s := newSequel(t)
	for query, field := range map[string]string{"step=hour&since=30d": "step", "by=code": "by", "step=minute": "step", "state=failed": "state", "since=x": "since", "since=1h&until=2h": "until"} {
		if p := refusedAt(t, s.options, "/v1/stats?"+query, 400); p.Field != field || p.Detail == "" {
			t.Errorf("%s: %+v", query, p)
		}
	}
}

func TestStatSpan(t *testing.T) {
	at := func(text string) time.Time {
		t.Helper()
		v, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	now := at("2026-03-20T12:34:56Z")
	for _, c := range []struct{ step, since, until, wantSince, wantUntil string }{
		{"", "", "", "2026-03-19T12:00:00Z", "2026-03-20T13:00:00Z"},
		{"day", "", "", "2026-02-18T00:00:00Z", "2026-03-20T13:00:00Z"},
		{"month", "", "", "2025-03-20T00:00:00Z", "2026-03-20T13:00:00Z"},
		{"hour", "2026-03-20T11:59:59Z", "2026-03-20T12:00:00Z", "2026-03-20T11:00:00Z", "2026-03-20T12:00:00Z"},
		{"", "2026-01-05T11:59:59+02:00", "2026-01-06T00:00:01Z", "2026-01-05T00:00:00Z", "2026-01-07T00:00:00Z"},
		{"hour", "2026-03-06T12:34:56Z", "", "2026-03-06T00:00:00Z", "2026-03-20T13:00:00Z"},
	} {
		q := &query.Query{Step: c.step}
		if c.since != "" {
			q.Span.Since = at(c.since)
		}
		if c.until != "" {
			q.Span.Until = at(c.until)
		}
		got, err := statSpan(q, now)
		if want := (outbox.Span{Since: at(c.wantSince), Until: at(c.wantUntil)}); err != nil || !got.Since.Equal(want.Since) || !got.Until.Equal(want.Until) {
			t.Errorf("%+v: %v to %v (%v)", c, got.Since, got.Until, err)
		}
	}
}

func TestStepStart(t *testing.T) {
	at := time.Date(2026, 3, 1, 0, 59, 59, 0, time.FixedZone("", 3600)) // Saturday, 23:59:59 UTC
	for step, want := range map[string]string{"": "0001-01-01T00:00:00Z", "hour": "2026-02-28T23:00:00Z", "day": "2026-02-28T00:00:00Z", "week": "2026-02-23T00:00:00Z", "month": "2026-02-01T00:00:00Z"} {
		if got := stepStart(at, step).Format(time.RFC3339); got != want {
			t.Errorf("%s begins at %s, want %s", step, got, want)
		}
	}
	for day, want := range map[int]int{1: 23, 2: 2, 8: 2, 9: 9} { // of March: Sunday, Monday, Sunday, Monday
		if got := stepStart(time.Date(2026, 3, day, 12, 0, 0, 0, time.UTC), "week").Day(); got != want {
			t.Errorf("the week of March %d begins on %d, want %d", day, got, want)
		}
	}
}

// Rows of many hours are added up, and their percentiles are those of all.
func TestGroups(t *testing.T) {
	stats := make([]outbox.Stat, 0, 50)
	start := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for i := range 50 {
		s := outbox.Stat{Start: start.Add(time.Duration(i) * time.Hour), Endpoint: "e", Type: "a", Delivered: 1, Attempts: 1}
		s.Took.Add(time.Duration(i+1) * time.Millisecond)
		stats = append(stats, s)
	}
	groups, err := group(stats, &query.Query{Step: "day"})
	if err != nil || len(groups) != 3 || groups[0].Delivered != 24 || groups[2].Delivered != 2 {
		t.Fatalf("%d groups (%v)", len(groups), err)
	}
	var all sketch.Sketch
	for _, g := range groups {
		all.Merge(&g.Took)
	}
	if p50 := all.Quantile(0.5); math.Abs(float64(p50-25*time.Millisecond)) > float64(25*time.Millisecond)*sketch.Accuracy {
		t.Errorf("p50 is %v", p50)
	}
	many := make([]outbox.Stat, maxStatRows+1)
	for i := range many {
		many[i] = outbox.Stat{Tenant: fmt.Sprint(i)}
	}
	if _, err := group(many, &query.Query{By: "tenant"}); err == nil {
		t.Error("there is no bound on rows")
	}
}

// Ages of several backlogs are about those of all deliveries.
func TestBacklogs(t *testing.T) {
	ages := func(unit time.Duration) []time.Duration {
		var all []time.Duration
		for _, q := range quantiles() {
			all = append(all, time.Duration(q*100)*unit)
		}
		return all
	}
	b := backlogs{
		pending: map[string]int64{"a": 100, "b": 900, "c": 5},
		ages:    map[string][]time.Duration{"a": ages(time.Second), "b": ages(time.Millisecond)},
	}
	if got := *b.of([]string{"a"}).AgeMS; got != (Ages{50_000, 90_000, 99_000}) {
		t.Errorf("a: %+v", got)
	}
	both := b.of([]string{"a", "b"})
	if both.Count.N != 1000 || both.AgeMS.P50 > 100 || both.AgeMS.P50 < 45 || both.AgeMS.P99 < 85_000 || both.AgeMS.P99 > 95_000 {
		t.Errorf("a and b: %+v", both.AgeMS)
	}
	if some := b.of([]string{"a", "c"}); some.Count.N != 105 || some.AgeMS != nil {
		t.Errorf("ages that are not known: %+v", some)
	}
	if q := quantiles(); !slices.IsSorted(q) || q[len(q)-1] != 1 || len(q) != 21 {
		t.Errorf("quantiles are %v", q)
	}
}

// lazy is an outbox that does not tell ages in time.
type lazy struct{ *outboxtest.Mem }

func (lazy) Ages(ctx context.Context, _ string, _ []float64) ([]time.Duration, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestAgesTakeTooLong(t *testing.T) {
	s := newSequel(t)
	s.options.Records = lazy{s.Mem}
	if b := ask[Statistics](t, s, "/v1/stats").Total.Backlog; b.Count.N != 2 || b.AgeMS != nil {
		t.Errorf("%+v", b)
	}
	if err := (&backlogs{pending: map[string]int64{"a": 1}}).ask(ended(), lazy{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that has gone: %v", err)
	}
}

func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

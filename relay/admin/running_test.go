package admin

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"relay/ingest/problem"
	"relay/outbox"
	"relay/relay/deliver"
	"relay/relay/explain"
)

// The answer for one endpoint has statistics and its newest deliveries.
func TestEndpointHistory(t *testing.T) {
	s := newSequel(t)
	e := ask[Endpoint](t, s, "/v1/endpoints/search")
	if e.Stats == nil || e.Stats.Total != 2 || e.Stats.Failed != 1 || e.Stats.Pending != 1 || *e.Stats.SuccessRate != 0 || *e.Stats.MeanMS != 1000 || e.Stats.Last.IsZero() {
		t.Errorf("stats are %+v", e.Stats)
	}
	if len(e.Recent) != 2 || e.Recent[0].ID != s.ids["again"] || e.Recent[1].ID != s.ids["search"] {
		t.Errorf("recent are %+v", e.Recent)
	}
	if since := time.Since(e.Stats.Since); since < 7*day || since > 7*day+time.Hour {
		t.Errorf("since %v", e.Stats.Since)
	}
	if b := ask[Endpoint](t, s, "/v1/endpoints/billing"); b.Labels["project"] != "web" {
		t.Errorf("labels are %v", b.Labels)
	}
	for i := range maxRecent {
		s.accept(t, outbox.Event{ID: fmt.Sprintf("evt_more_%d", i), Type: "x", Time: time.Now(), Data: []byte("1")}, "search")
	}
	if e := ask[Endpoint](t, s, "/v1/endpoints/search"); len(e.Recent) != maxRecent {
		t.Errorf("%d recent", len(e.Recent))
	}
	for _, e := range ask[EndpointList](t, s, "/v1/endpoints").Endpoints {
		if e.Stats != nil || e.Recent != nil {
			t.Errorf("the list has them, too: %+v", e)
		}
	}
	s.options.Records = gone{s.Mem}
	refusedAt(t, s.options, "/v1/endpoints/search", 503)
}

func TestConfigRoute(t *testing.T) {
	want := Running{Config: Config{Generation: 3, Hash: "0123456789ab", Error: "bad"}, Problems: []string{"bad", "worse"}, Files: []string{"/etc/relay.hcl"}, Endpoints: 2}
	o := Options{Outbox: box{}, Running: func() Running { return want }}
	w := get(o, "GET", "/v1/config")
	if w.Code != 200 || !strings.Contains(w.Body.String(), `"problems":["bad","worse"],"files":["/etc/relay.hcl"],"endpoints":2,"event_types":0`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestExplainRoute(t *testing.T) {
	var asked []string
	o := Options{Outbox: box{}, Policy: running(), Deliverer: gatesOf(running()()), Explain: func(event []byte, endpoint string) (explain.Explanation, error) {
		asked = append(asked, string(event)+" "+endpoint)
		switch endpoint {
		case "nobody":
			return explain.Explanation{}, deliver.ErrNoEndpoint
		case "bad":
			p := problem.New(problem.InvalidType, "bad type")
			p.Field = "type"
			return explain.Explanation{}, Refusal(p)
		case "broken":
			return explain.Explanation{}, errors.New("a defect")
		}
		return explain.Explanation{Endpoints: []explain.Endpoint{{Name: "a", Gets: true}}}, nil
	}}
	for query, want := range map[string]struct {
		status int
		text   string
	}{
		"":                 {200, `"name":"a","gets":true`},
		"?endpoint=a":      {200, `"name":"a"`},
		"?endpoint=nobody": {404, `"endpoint_not_found"`},
		"?endpoint=bad":    {400, `"field":"type"`},
		"?endpoint=broken": {500, `"internal_error"`},
	} {
		w := httptest.NewRecorder()
		New(o).ServeHTTP(w, httptest.NewRequest("POST", "/v1/explain"+query, strings.NewReader(`{"x":1}`)))
		if w.Code != want.status || !strings.Contains(w.Body.String(), want.text) {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
		}
	}
	if len(asked) != 5 || !strings.HasPrefix(asked[0], `{"x":1} `) {
		t.Errorf("asked %q", asked)
	}
	w := httptest.NewRecorder()
	New(o).ServeHTTP(w, httptest.NewRequest("POST", "/v1/explain", zeros(explainBody+1)))
	if w.Code != 413 {
		t.Errorf("a long body: %d", w.Code)
	}
}

// zeros is a body of n bytes.
func zeros(n int64) *zeroReader { return &zeroReader{n} }

type zeroReader struct{ left int64 }

func (z *zeroReader) Read(b []byte) (int, error) {
	n := min(int64(len(b)), z.left)
	if z.left -= n; n == 0 {
		return 0, errors.New("read to its end")
	}
	return int(n), nil
}

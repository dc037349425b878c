package app

import (
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"relay/config"
	"relay/ingest"
	"relay/outbox"
	"relay/outbox/sqlite"
	"relay/policy"
)

// What filters remember is in the outbox, over a restart too, and what they cannot decide is
// a failed delivery.
func TestFiltersRemember(t *testing.T) {
	const each = "  url  = \"https://example.com/\"\n  sign = [\"none\"]\n}\n"
	file, err := config.Parse("relay.hcl", []byte(
		"endpoint \"big\" {\n  when = event.data.p >= 100\n"+each+
			"endpoint \"quota\" {\n  crossing {\n    value = event.data.p\n    at    = range(80, 121, 10)\n    by    = event.key\n  }\n"+each+
			"endpoint \"once\" {\n  dedupe {\n    by     = event.key\n    window = \"1h\"\n  }\n"+each), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Decode(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	open := func() (outbox.Engine, *ingest.Ingest) {
		s, err := sqlite.Open(t.Context(), sqlite.Options{Dir: dir, Durability: "relaxed", MaxSize: config.GiB, Log: zerolog.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		route := func(e *outbox.Event) ([]string, []outbox.Term) { return p.Route(e) }
		return s, ingest.New(ingest.Options{Outbox: s, Route: route, Log: zerolog.Nop()})
	}
	store, in := open()
	for i, c := range []struct {
		data string
		want []string // endpoint, state, code
	}{
		{`{"p":79}`, []string{"once pending "}},
		{`{"p":85}`, []string{"quota pending "}},
		{`{"p":89}`, nil},
		{`{"p":115}`, []string{"big pending ", "quota pending "}}, // 90, 100 and 110 are one
		{`{"p":119}`, []string{"big pending "}},
		{`{"p":10}`, nil}, // another month
		{`{"p":81}`, []string{"quota pending "}},
		{`{"q":1}`, []string{"big failed when_error", "quota failed when_error"}},
		{"restart", nil},
		{`{"p":82}`, nil},
		{`{"p":95}`, []string{"quota pending "}},
	} {
		if c.data == "restart" {
			if err := store.Close(); err != nil {
				t.Fatal(err)
			}
			store, in = open()
			continue
		}
		id := fmt.Sprint("e", i)
		answer := in.Handle(t.Context(), &ingest.Request{
			Method: "POST", Path: "/v1/events", ContentType: "application/json",
			Body: fmt.Appendf(nil, `{"type":"a","key":"k","id":%q,"data":%s}`, id, c.data),
		})
		if want := fmt.Sprintf("{\"id\":%q,\"deliveries\":%d,\"durability\":\"relaxed\"}\n", id, len(c.want)); string(answer.Body) != want {
			t.Errorf("%s: %d %s, want %s", c.data, answer.Status, answer.Body, want)
		}
		record, err := store.Lookup(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, d := range record.Deliveries {
			got = append(got, fmt.Sprintf("%s %s %s", d.Endpoint, d.State, d.Code))
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", c.data, diff)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

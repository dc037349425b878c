package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"relay/ingest/listen"
	"relay/relay/admin"
	"relay/relay/client"
)

func TestEndpointsTable(t *testing.T) {
	now := time.Unix(1e9, 0).UTC()
	var out bytes.Buffer
	endpoints := []admin.Endpoint{
		{Name: "billing", URL: "https://billing.example.com/hooks", State: "active", Hash: "0123456789ab", Agrees: new(true), Waiting: "breaker", OpenUntil: now.Add(27500 * time.Millisecond),
			Deliveries: admin.Deliveries{Accepted: 1015, Pending: 12, Delivered: 1000, Failed: 3, OldestMS: new(int64(4_205_900))}},
		{Name: "crm", URL: "https://crm.example.com", State: "disabled", Hash: "ba9876543210", Agrees: new(false), Waiting: "disabled", Reason: "the file says enabled = false",
			Deliveries: admin.Deliveries{Accepted: 7, Held: 7, OldestMS: new(int64(900))}},
		{Name: "dead", URL: "https://d.example.com", State: "disabled", Hash: "ba9876543210", Waiting: "disabled", Reason: "the receiver answered 410", Code: "gone", Since: now},
		{Name: "quiet", URL: "https://q.example.com", State: "paused", Hash: "ba9876543210", Waiting: "paused", Reason: "paused by an operator", Code: "operator", Since: now},
		{Name: "slow", URL: "https://s.example.com", State: "active", Hash: "ba9876543210", Waiting: "retry_after", HeldUntil: now.Add(time.Hour)},
		{Name: "soon", URL: "https://s.example.com", State: "active", Hash: "ba9876543210", Waiting: "retry_after", HeldUntil: now.Add(time.Millisecond)},
		{Name: "late", URL: "https://s.example.com", State: "active", Hash: "ba9876543210", Waiting: "limit"},
		{Name: "shy", URL: "https://s.example.com", State: "active", Hash: "ba9876543210", Waiting: "consent", Reason: "the receiver answered 405 to the handshake", Code: "consent"},
		{Name: "fails", URL: "https://s.example.com", State: "active", Hash: "ba9876543210", Failing: &admin.Failing{Since: now, Last: now, Code: "http_500", Attempts: 3}},
		{Name: "audit", State: "elsewhere", Agrees: new(false)},
		{Name: "old", State: "removed", Reason: "paused by an operator", Waiting: "paused", Deliveries: admin.Deliveries{Accepted: 2, Delivered: 2}},
	}
	if err := printEndpoints(client.Output{Out: &out, Terminal: true}, endpoints, now); err != nil {
		t.Fatal(err)
	}
	want := `
NAME     URL                                STATE      WAITS               PENDING  HELD  DELIVERED  FAILED  OLDEST   HASH          AGREES
billing  https://billing.example.com/hooks  active     breaker 27s         12       0     1000       3       1h10m5s  0123456789ab  yes
crm      https://crm.example.com            disabled   -                   0        7     0          0       0s       ba9876543210  no
dead     https://d.example.com              disabled   -                   0        0     0          0       -        ba9876543210  -
quiet    https://q.example.com              paused     -                   0        0     0          0       -        ba9876543210  -
slow     https://s.example.com              active     retry_after 1h0m0s  0        0     0          0       -        ba9876543210  -
soon     https://s.example.com              active     retry_after 1s      0        0     0          0       -        ba9876543210  -
late     https://s.example.com              active     limit               0        0     0          0       -        ba9876543210  -
shy      https://s.example.com              active     consent             0        0     0          0       -        ba9876543210  -
fails    https://s.example.com              failing    -                   0        0     0          0       -        ba9876543210  -
audit    -                                  elsewhere  -                   0        0     0          0       -        -             no
old      -                                  removed    -                   0        0     2          0       -        -             -

crm: disabled: the file says enabled = false
dead: disabled since 2001-09-09T01:46:40Z: the receiver answered 410; to go on: relay enable dead
quiet: paused by an operator since 2001-09-09T01:46:40Z; to go on: relay resume quiet
shy: waits for consent: the receiver answered 405 to the handshake
fails: failing since 2001-09-09T01:46:40Z: no attempt delivered, the last one ended with http_500; why: relay deliveries --endpoint fails

AGREES no: the files of the Relays differ, and each delivers by its own. --json says who has which hash;
bring the files into line and reload the Relays that are behind.
`
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), out.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	table, below, _ := strings.Cut(out.String(), "\n\n")

	// For a program: cells between tabs, and what is said below elsewhere.
	var rows, remarks bytes.Buffer
	if err := printEndpoints(client.Output{Out: &rows, Err: &remarks}, endpoints, now); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(regexp.MustCompile(" {2,}").ReplaceAllString(table, "\t")+"\n", rows.String()); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(strings.ReplaceAll(below, "\n\n", "\n"), remarks.String()); diff != "" {
		t.Errorf("remarks (-want +got):\n%s", diff)
	}
}

// Ten thousand endpoints are more than a megabyte.
func TestEndpointsOfManyAreRead(t *testing.T) {
	list := admin.EndpointList{Endpoints: make([]admin.Endpoint, 10_000)}
	for i := range list.Endpoints {
		list.Endpoints[i] = admin.Endpoint{Name: fmt.Sprintf("endpoint-%d", i), URL: "https://example.com/hooks", State: "active", Hash: "0123456789ab"}
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(list) }))
	defer s.Close()
	var out bytes.Buffer
	if code := run([]string{"endpoints", "--admin", "http://" + s.Listener.Addr().String()}, streams{out: &out, err: &out}); code != 0 {
		t.Fatal(out.String())
	}
	if n := bytes.Count(out.Bytes(), []byte("\n")); n != 10_001 {
		t.Errorf("%d lines", n)
	}
}

// What a verb is told when it may not ask, or asks the wrong one.
func TestEndpointsRefused(t *testing.T) {
	for _, c := range []struct {
		name    string
		handler http.Handler
		want    string
	}{
		{"another token", listen.Guard{Token: "another"}.Wrap(http.NotFoundHandler()),
			"relay: refused: 401 unauthorized: send the header Authorization: Bearer with the token of this listener; set $RELAY_ADMIN_TOKEN to that of the Relay that runs, or name its file with --config\n"},
		{"an older version", http.NotFoundHandler(),
			"relay: answered 404 Not Found: what listens on tcp:%s is not Relay's admin listener, or that of an older version\n"},
		{"not JSON", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"endp`) }),
			"relay: read answer of /v1/endpoints (6 bytes): unexpected end of JSON input\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := httptest.NewServer(c.handler)
			defer s.Close()
			addr := s.Listener.Addr().String()
			file := filepath.Join(t.TempDir(), "relay.hcl")
			text := fmt.Sprintf("admin {\n  http  = %q\n  token = \"canary-of-a-token\"\n}\n", addr)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			var out, errs bytes.Buffer
			code := run([]string{"endpoints", "--config", file}, streams{strings.NewReader(""), &out, &errs})
			want := strings.ReplaceAll(c.want, "%s", addr)
			if diff := cmp.Diff(want, errs.String()); code != exitFailed || diff != "" || out.Len() > 0 {
				t.Errorf("code %d, output %q, errors (-want +got):\n%s", code, &out, diff)
			}
		})
	}
}

package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"relay/internal/testkit"
	"relay/relay/admin"
)

// change sends a request with a body to the admin socket in dir.
func change(t *testing.T, dir, method, path, body string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "admin.sock"))
		},
	}}
	r, err := http.NewRequestWithContext(t.Context(), method, "http://relay"+path, strings.NewReader(body))
	testkit.Must(t, err)
	resp, err := client.Do(r)
	testkit.Must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	testkit.Must(t, err)
	return resp.StatusCode, string(text)
}

// An operator tests an endpoint, sends what failed again, and erases it, with a real outbox and real attempts. No answer
// and no line of the log has a secret.
func TestOperatorRepairs(t *testing.T) {
	var mended atomic.Bool
	var requests atomic.Int64
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if !mended.Load() {
			http.Error(w, "not now", http.StatusBadRequest)
		}
	}))
	defer receiver.Close()
	p := newPlace(t)
	p.write(p.file, p.text(endpointBlock("a", receiver.URL+"/?token=canary", local, `headers = { "X-Key" = "canary" }`)))
	p.start(false)

	var said strings.Builder
	do := func(status int, method, path, body string, into any) {
		t.Helper()
		code, text := change(t, p.dir, method, path, body)
		said.WriteString(text)
		if code != status || json.Unmarshal([]byte(text), into) != nil {
			t.Fatalf("%s %s: %d %s", method, path, code, text)
		}
	}
	var tested admin.TestResult
	do(200, "POST", "/v1/endpoints/a/pause", "", new(admin.Endpoint))
	do(200, "POST", "/v1/endpoints/a/test", "", &tested)
	if tested.State != "failed" || tested.Status != 400 || tested.ID == "" || tested.Response == nil || !strings.Contains(tested.Response.Body, "not now") {
		t.Errorf("test: %+v", tested)
	}
	do(200, "POST", "/v1/endpoints/a/resume", "", new(admin.Endpoint))
	for n := range 5 {
		say(t, p.dir, fmt.Sprintf(`{"type":"x.y","data":{"n":%d}}`, n))
	}
	list := func(query string) (all admin.DeliveryList) {
		do(200, "GET", "/v1/deliveries?"+query, "", &all)
		return all
	}
	testkit.Until(t, "failures", func() bool { return list("state=failed&manual=false").Total.N == 5 })

	mended.Store(true)
	one := list("state=failed&manual=false").Items[0].ID
	do(202, "POST", "/v1/deliveries/"+one+"/redeliver", "", new(admin.Redelivery))
	var made admin.BulkAnswer
	do(202, "POST", "/v1/redeliveries", `{"endpoint":"a","manual":false,"rate":100}`, &made)
	var job admin.Job
	testkit.Until(t, "the job", func() bool {
		do(200, "GET", "/v1/jobs/"+made.ID, "", &job)
		return job.State == "done"
	})
	if job.Done != 4 || job.Skipped["delivered_since"]+job.Skipped["on_its_way"] != 1 || made.Matched.N != 5 && !made.Matched.AtLeast {
		t.Errorf("job: %+v", job)
	}
	testkit.Until(t, "redeliveries", func() bool { return list("state=delivered&manual=true").Total.N == 5 })
	if n := requests.Load(); n != 11 {
		t.Errorf("the receiver had %d requests, want a test, 5 failures and 5 redeliveries", n)
	}
	var whole admin.DeliveryWhole
	do(200, "GET", "/v1/deliveries/"+one, "", &whole)
	if len(whole.RedeliveredAs) != 1 {
		t.Errorf("redelivered as %v", whole.RedeliveredAs)
	}
	do(202, "POST", "/v1/erasures", `{"endpoint":"a"}`, &made)
	testkit.Until(t, "the erasure", func() bool {
		do(200, "GET", "/v1/jobs/"+made.ID, "", &job)
		return job.State == "done"
	})
	if job.Done != 6 {
		t.Errorf("erasure: %+v", job)
	}
	do(200, "GET", "/v1/deliveries/"+one, "", &whole)
	if string(whole.Payload) != "null" || whole.Erased.IsZero() {
		t.Errorf("erased: %+v", whole)
	}

	var entries admin.AuditList
	do(200, "GET", "/v1/audit?limit=100", "", &entries)
	var verbs []string
	for _, e := range entries.Items {
		verbs = append([]string{e.Verb}, verbs...)
		if want := fmt.Sprintf("uid %d", os.Getuid()); runtime.GOOS == "linux" && e.Who != want {
			t.Errorf("who is %q, want %q", e.Who, want)
		}
	}
	if got := strings.Join(verbs, " "); got != "pause test resume redeliver redeliver redeliver erase erase" {
		t.Errorf("audit: %s", got)
	}
	for _, where := range []string{said.String(), p.log.String()} {
		if strings.Contains(where, "canary") || strings.Contains(where, secret) {
			t.Errorf("a secret in\n%s", where)
		}
	}
}

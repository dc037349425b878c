package page

import (
	"encoding/csv"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"relay/relay/admin"
)

// pagesAPI is an API with a list of deliveries of several pages; it fails at the page of a cursor, and notes what it was asked.
type pagesAPI struct {
	pages  int
	failAt string

	mu     sync.Mutex
	asked  []url.Values
	access []*admin.Access
}

func (a *pagesAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	a.mu.Lock()
	a.asked, a.access = append(a.asked, q), append(a.access, admin.AccessOf(r.Context()))
	a.mu.Unlock()
	at := 0
	_, _ = fmt.Sscan(q.Get("cursor"), &at)
	if r.URL.Path != "/v1/deliveries" || a.failAt != "" && q.Get("cursor") == a.failAt || q.Get("state") == "odd" {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"code":"invalid_parameter","detail":"state is odd"}`))
		return
	}
	next := "null"
	if at+1 < a.pages {
		next = fmt.Sprintf("%q", fmt.Sprint(at+1))
	}
	items := []string{}
	for i := range 100 {
		items = append(items, fmt.Sprintf(`{"id":"dlv_%d","event":{"id":"evt_1","type":"=order","tenant":"a,\"b\"","key":"12345678901234567890"},"endpoint":"crm","state":"failed","attempts":2,"last":{"n":2,"status":503,"took_ms":1.5,"started":"2026-01-31T11:59:00Z"},"created":"2026-01-31T11:58:00Z","error":"two\nlines"}`, 100*at+i))
	}
	_, _ = fmt.Fprintf(w, `{"items":[%s],"next":%s}`, strings.Join(items, ","), next)
}

func exported(p *Page, path string) *httptest.ResponseRecorder {
	return part(p, http.MethodGet, path, "en", nil)
}

// All that match a filter can be had as a file, page by page, with the rights of who asks.
func TestExport(t *testing.T) {
	api := &pagesAPI{pages: 3}
	p := New(Options{API: api, Open: true, Now: noon})
	w := exported(p, "/deliveries.csv?state=failed&endpoint=&cursor=9&limit=7&label.x=y")
	text, marked := strings.CutPrefix(w.Body.String(), "\ufeff")
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil || len(rows) != 301 || !marked || w.Header().Get("Content-Type") != "text/csv; charset=utf-8" || !strings.HasPrefix(w.Header().Get("Content-Disposition"), `attachment; filename="deliveries-`) {
		t.Fatalf("%d rows, %v, %v", len(rows), err, w.Header())
	}
	want := []string{"dlv_299", "2026-01-31T11:58:00Z", "failed", "", "crm", "'=order", "evt_1", `a,"b"`, "12345678901234567890", "2", "503", "1.5", "2026-01-31T11:59:00Z", "", "", "", "false", "two\nlines"}
	if diff := cmp.Diff(want, rows[300]); diff != "" || rows[0][0] != "id" || len(rows[0]) != len(want) {
		t.Errorf("%v (-want +got)\n%s", rows[0], diff)
	}
	first := url.Values{"state": {"failed"}, "label.x": {"y"}, "limit": {"100"}, "total": {"false"}}
	if diff := cmp.Diff(first, api.asked[0]); diff != "" || len(api.asked) != 3 || api.asked[2].Get("cursor") != "2" {
		t.Errorf("%d requests (-want +got)\n%s", len(api.asked), diff)
	}
	w = exported(p, "/deliveries.ndjson")
	lines := strings.Split(strings.TrimSuffix(w.Body.String(), "\n"), "\n")
	if len(lines) != 300 || !strings.HasPrefix(lines[299], `{"id":"dlv_299",`) || w.Header().Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("%d lines, the last is %s", len(lines), lines[len(lines)-1])
	}
}

// A file has a most, a refusal is a screen as long as nothing was written, and a file that cannot be ended is cut off.
func TestExportEnds(t *testing.T) {
	api := &pagesAPI{pages: 1000}
	p := New(Options{API: api, Open: true, Now: noon})
	if n := strings.Count(exported(p, "/deliveries.ndjson").Body.String(), "\n"); n != exportMost {
		t.Errorf("%d lines, want %d", n, exportMost)
	}
	if w := exported(p, "/deliveries.csv?state=odd"); w.Code != http.StatusBadRequest || w.Header().Get("Content-Disposition") != "" || !strings.Contains(w.Body.String(), "state is odd") {
		t.Errorf("a refusal: %d %v", w.Code, w.Header())
	}
	if w := exported(p, "/deliveries.xls"); w.Code != http.StatusNotFound {
		t.Errorf("another format: %d", w.Code)
	}
	api.failAt = "2"
	func() {
		defer func() {
			if cause, is := recover().(error); !is || !errors.Is(cause, http.ErrAbortHandler) {
				t.Errorf("an outbox that fails in the middle: %v", cause)
			}
		}()
		exported(p, "/deliveries.csv")
	}()
}

// A customer's file is asked for with the customer's access.
func TestExportIsBound(t *testing.T) {
	api := &pagesAPI{pages: 2}
	bound := &admin.Access{May: []admin.Right{admin.Read}, Tenants: []string{"acme"}}
	p := New(Options{API: api, Now: noon, Tokens: func() *admin.Tokens {
		return &admin.Tokens{Whole: "whole", Others: map[string]*admin.Access{"bound": bound}}
	}})
	if w := byToken(p, "bound", "/deliveries.csv"); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for _, got := range api.access {
		if got == nil || !got.Same(bound) {
			t.Errorf("the API is asked with %+v", got)
		}
	}
	if w := exported(p, "/deliveries.csv"); w.Code == http.StatusOK && strings.Contains(w.Body.String(), "dlv_1") {
		t.Error("nobody gets a file")
	}
}

// No program for tables takes a cell for a formula.
func TestNoCellIsAFormula(t *testing.T) {
	for _, first := range []string{"=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"} {
		if got := string(csvLine([]string{first + "1"})); !strings.HasPrefix(strings.TrimPrefix(got, `"`), "'"+first) {
			t.Errorf("%q is written as %q", first+"1", got)
		}
	}
	if got := string(csvLine([]string{"", "é", "a=1"})); got != ",é,a=1\r\n" {
		t.Errorf("others are written as %q", got)
	}
}

// A file is cut off once who asked for it has no access any more.
func TestExportEndsWithItsAccess(t *testing.T) {
	api := &pagesAPI{pages: 10}
	p := New(Options{API: api, Now: noon, Tokens: func() *admin.Tokens {
		if len(api.asked) >= 2 {
			return &admin.Tokens{Whole: "another"}
		}
		return &admin.Tokens{Whole: "whole"}
	}})
	defer func() {
		if cause, is := recover().(error); !is || !errors.Is(cause, http.ErrAbortHandler) || len(api.asked) != 2 {
			t.Errorf("%v after %d pages", cause, len(api.asked))
		}
	}()
	byToken(p, "whole", "/deliveries.csv")
}

// Few files are made at a time; one that ended makes room.
func TestExportsAreBounded(t *testing.T) {
	hold, begun := make(chan struct{}), make(chan struct{})
	var asked atomic.Int32
	api := &pagesAPI{pages: 1}
	p := New(Options{Open: true, Now: noon, API: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) <= maxExports {
			begun <- struct{}{}
			<-hold
		}
		api.ServeHTTP(w, r)
	})})
	var all sync.WaitGroup
	for range maxExports {
		all.Go(func() { exported(p, "/deliveries.csv") })
		<-begun
	}
	if w := exported(p, "/deliveries.csv"); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "Too many requests at once.") {
		t.Errorf("one more: %d %s", w.Code, w.Body)
	}
	close(hold)
	all.Wait()
	if w := exported(p, "/deliveries.csv"); w.Code != http.StatusOK {
		t.Errorf("once the others have ended: %d %s", w.Code, w.Body)
	}
}

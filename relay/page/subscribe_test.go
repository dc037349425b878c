package page

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relay/relay/admin"
)

// Types that are ticked and patterns that are typed are one list.
func TestTickedTypes(t *testing.T) {
	c := &call{p: New(Options{}), lang: "en"}
	f := &endpointForm{Types: []admin.EventType{{Type: "order.created"}, {Type: "order.paid"}}}
	f.show(settings{"events": []any{"order.paid", "invoice.*"}})
	if got := f.Typed.Get("events"); got != "invoice.*" || !slices.Equal(f.Typed["tick"], []string{"order.paid"}) {
		t.Errorf("typed %q, ticked %v", got, f.Typed["tick"])
	}
	for _, x := range []struct {
		typed  string
		ticked []string
		want   string
	}{
		{"", nil, "<nil>"}, {"", []string{"order.created", "order.paid"}, "[order.created order.paid]"}, {"invoice.*", []string{"order.created"}, "[invoice.* order.created]"},
		{"order.created", []string{"order.created"}, "[order.created]"},
	} {
		f := &endpointForm{Types: f.Types, Typed: url.Values{"events": {x.typed}, "tick": x.ticked}}
		if got := fmt.Sprint(f.settings(c)["events"]); got != x.want {
			t.Errorf("%q and %v: %s, want %s", x.typed, x.ticked, got, x.want)
		}
	}
}

// A pattern that fits no type of the catalogue is told, and where there is no catalogue nothing is.
func TestUnknownTypes(t *testing.T) {
	types := []admin.EventType{{Type: "order.created"}, {Type: "invoice.paid"}}
	for events, want := range map[string]string{
		"all": "[]", "": "[]", "order.created": "[]", "order.*, invoice.paid": "[]", "**": "[]", "order.creatd, invoice.*": "[order.creatd]", "!order.gone": "[]", "order.created order.creatd !x": "[order.creatd]", "shop.*, x": "[shop.* x]",
	} {
		if got := fmt.Sprint(unknownTypes(events, types)); got != want {
			t.Errorf("%q: %s, want %s", events, got, want)
		}
		if got := unknownTypes(events, nil); got != nil {
			t.Errorf("%q without a catalogue: %v", events, got)
		}
	}
}

// The sample that verifies takes what is signed, and nothing else.
func TestSampleVerifies(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("the sample is run by Node.js: ", err)
	}
	now := fmt.Sprint(time.Now().Unix())
	key := []byte("0123456789abcdef0123456789abcdef")
	sign := func(at, body string) string {
		h := hmac.New(sha256.New, key)
		h.Write([]byte("evt_1." + at + "." + body))
		return "v1," + base64.StdEncoding.EncodeToString(h.Sum(nil))
	}
	text := verifySample + "\n"
	for _, x := range []struct{ at, signature, body string }{
		{now, sign(now, "{}"), "{}"}, {now, "v1,AAAA " + sign(now, "{}"), "{}"}, {now, sign(now, "{}"), "{ }"}, {"1000", sign("1000", "{}"), "{}"}, {now, "", "{}"},
	} {
		text += fmt.Sprintf("console.log(verify(%q, {'webhook-id': 'evt_1', 'webhook-timestamp': %q, 'webhook-signature': %q}, %q));\n", "whsec_"+base64.StdEncoding.EncodeToString(key), x.at, x.signature, x.body)
	}
	file := filepath.Join(t.TempDir(), "sample.mjs")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), node, file).CombinedOutput()
	if want := "true\ntrue\nfalse\nfalse\nfalse\n"; err != nil || string(out) != want {
		t.Errorf("%v: %s", err, out)
	}
}

// The list of endpoints says for which tenants they are, where that is so of any, and to who sees several.
func TestTenantsInTheListOfEndpoints(t *testing.T) {
	for answer, want := range map[string]bool{
		`{"endpoints":[{"name":"a","state":"active","tenants":["acme","globex"]},{"name":"b","state":"active"}],"total":2}`: true,
		`{"endpoints":[{"name":"b","state":"active"}],"total":1}`:                                                           false,
	} {
		for _, access := range []*admin.Access{nil, {May: admin.Rights(), Tenants: []string{"acme"}}} {
			p := compared(t, New(Options{API: fakeAPI(map[string]string{"GET /v1/endpoints": answer, "GET /v1/stats": statsAnswer}), Now: noon, Tokens: func() *admin.Tokens {
				return &admin.Tokens{Whole: "whole", Others: map[string]*admin.Access{"bound": access}}
			}}))
			r := httptest.NewRequest(http.MethodGet, "/endpoints", nil)
			r.Header.Set("Authorization", map[bool]string{true: "Bearer whole", false: "Bearer bound"}[access == nil])
			w := httptest.NewRecorder()
			p.ServeHTTP(w, r)
			if got := strings.Contains(w.Body.String(), "<th>Tenants</th>") && strings.Contains(w.Body.String(), "acme, globex"); w.Code != http.StatusOK || got != (want && access == nil) {
				t.Errorf("whole %v, %s: %d, a column: %v", access == nil, answer, w.Code, got)
			}
		}
	}
}

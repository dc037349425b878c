package listen

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"relay/ingest/problem"
)

func TestGuard(t *testing.T) {
	local, unix := Guard{Hosts: []string{"Relay.internal", "named.example:7070"}}, Guard{AnyHost: true}
	locked := Guard{Token: "t0ken"}
	tests := map[string]struct {
		guard  Guard
		host   string
		header string // one header, "Name: value"
		method string // POST if empty
		code   string // "" = may pass
	}{
		"localhost":                {guard: local, host: "localhost"},
		"localhost, port":          {guard: local, host: "LocalHost:7070"},
		"IPv4":                     {guard: local, host: "127.0.0.1:7070"},
		"other IPv4":               {guard: local, host: "10.0.0.9"},
		"IPv6":                     {guard: local, host: "[::1]:7070"},
		"IPv6 without port":        {guard: local, host: "[::1]"},
		"listed":                   {guard: local, host: "relay.internal:7070"},
		"listed, final dot":        {guard: local, host: "relay.INTERNAL."},
		"listed with port":         {guard: local, host: "named.example"},
		"not listed":               {guard: local, host: "evil.example", code: "unknown_host"},
		"below a listed one":       {guard: local, host: "x.relay.internal", code: "unknown_host"},
		"below localhost":          {guard: local, host: "evil.localhost", code: "unknown_host"},
		"IPv4 in a name":           {guard: local, host: "127.0.0.1.evil.example", code: "unknown_host"},
		"digits that look like":    {guard: local, host: "①②⑦.0.0.1", code: "unknown_host"},
		"number as address":        {guard: local, host: "2130706433", code: "unknown_host"},
		"two ports":                {guard: local, host: "localhost:1:2", code: "unknown_host"},
		"name behind a port":       {guard: local, host: "127.0.0.1:17181.evil.example", code: "unknown_host"},
		"name behind localhost":    {guard: local, host: "localhost:1.evil.example", code: "unknown_host"},
		"name behind IPv6":         {guard: local, host: "[::1]:80.evil.example", code: "unknown_host"},
		"name behind a listed one": {guard: local, host: "relay.internal:80.evil.example", code: "unknown_host"},
		"port with a sign":         {guard: local, host: "127.0.0.1:+80", code: "unknown_host"},
		"port too large":           {guard: local, host: "127.0.0.1:65536", code: "unknown_host"},
		"empty port":               {guard: local, host: "127.0.0.1:"},
		"half a bracket":           {guard: local, host: "[127.0.0.1", code: "unknown_host"},
		"other half of a bracket":  {guard: local, host: "127.0.0.1]", code: "unknown_host"},
		"IPv4 in brackets":         {guard: local, host: "[127.0.0.1]:80", code: "unknown_host"},
		"name in brackets":         {guard: local, host: "[localhost]", code: "unknown_host"},
		"zone that is a name":      {guard: local, host: "[::1%evil.example]", code: "unknown_host"},
		"listed that is no name":   {guard: Guard{Hosts: []string{"a:b"}}, host: "c:d", code: "unknown_host"},
		"no host":                  {guard: local, host: "", code: "missing_host"},
		"any host":                 {guard: unix, host: "whatever"},
		"any host, none":           {guard: unix, host: ""},
		"any host, origin":         {guard: unix, host: "", header: "Origin: null", code: "cross_origin"},
		"same origin":              {guard: local, host: "localhost:7070", header: "Origin: http://localhost:7070"},
		"origin of another port":   {guard: local, host: "localhost:7070", header: "Origin: http://localhost:8080", code: "cross_origin"},
		"origin of another site":   {guard: local, host: "localhost", header: "Origin: https://evil.example", code: "cross_origin"},
		"origin, reading":          {guard: local, host: "localhost", method: "GET", header: "Origin: https://evil.example", code: "cross_origin"},
		"null origin":              {guard: local, host: "localhost", header: "Origin: null", code: "cross_origin"},
		"origin that is none":      {guard: local, host: "localhost", header: "Origin: %", code: "cross_origin"},
		"fetch of the same origin": {guard: local, host: "localhost", header: "Sec-Fetch-Site: same-origin"},
		"typed by the user":        {guard: local, host: "localhost", method: "GET", header: "Sec-Fetch-Site: none"},
		"fetch of another site":    {guard: local, host: "localhost", header: "Sec-Fetch-Site: cross-site", code: "cross_origin"},
		"fetch of the same site":   {guard: local, host: "localhost", header: "Sec-Fetch-Site: same-site", code: "cross_origin"},
		"link on another site":     {guard: local, host: "localhost", method: "GET", header: "Sec-Fetch-Site: cross-site", code: "cross_origin"},
		"fetch of what":            {guard: local, host: "localhost", header: "Sec-Fetch-Site: whatever", code: "cross_origin"},
		"token":                    {guard: locked, host: "localhost", header: "Authorization: Bearer t0ken"},
		"token, small letters":     {guard: locked, host: "localhost", header: "Authorization: bearer t0ken"},
		"no token":                 {guard: locked, host: "localhost", code: "unauthorized"},
		"empty token":              {guard: locked, host: "localhost", header: "Authorization: Bearer ", code: "unauthorized"},
		"wrong token":              {guard: locked, host: "localhost", header: "Authorization: Bearer t0kem", code: "unauthorized"},
		"token cut short":          {guard: locked, host: "localhost", header: "Authorization: Bearer t0ke", code: "unauthorized"},
		"token of another scheme":  {guard: locked, host: "localhost", header: "Authorization: Basic t0ken", code: "unauthorized"},
		"token, wrong host":        {guard: locked, host: "evil.example", header: "Authorization: Bearer t0ken", code: "unknown_host"},
		"token nobody asked for":   {guard: local, host: "localhost", header: "Authorization: Bearer x"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("POST", "/", nil)
			if test.method != "" {
				r.Method = test.method
			}
			r.Host = test.host
			if name, value, ok := strings.Cut(test.header, ": "); ok {
				r.Header.Set(name, value)
			}
			passed := false
			w := httptest.NewRecorder()
			test.guard.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { passed = true })).ServeHTTP(w, r)
			if passed != (test.code == "") {
				t.Fatalf("passed %v: %s", passed, w.Body)
			}
			if !passed {
				var p problem.Problem
				if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || string(p.Code) != test.code || w.Code != p.Code.About().Status {
					t.Errorf("got %d %s (%v), want %s", w.Code, w.Body, err, test.code)
				}
				if strings.Contains(w.Body.String(), "t0ke") {
					t.Errorf("the answer shows a token: %s", w.Body)
				}
			} else if http.NewCrossOriginProtection().Check(r) != nil {
				t.Error("passed what http.CrossOriginProtection refuses")
			}
		})
	}
}

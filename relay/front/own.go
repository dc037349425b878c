package front

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"relay/ingest"
	"relay/ingest/listen"
	"relay/policy/sign"
)

// Documents are what receivers need to know, published under /.well-known/.
type Documents struct {
	Keys  sign.JWKS   // public keys that sign, old and new ones
	Types []TypeShown // what events there are
	Signs []string    // signature schemes, by name
}

// TypeShown is a type of event in webhooks.json.
type TypeShown struct {
	Type        string          `json:"type"`
	Description string          `json:"description,omitempty"`
	Schema      json.RawMessage `json:"schema,omitempty"`
	Example     json.RawMessage `json:"example,omitempty"`
}

// Paths of the documents (RFC 8615).
const (
	keysPath     = "/.well-known/jwks.json"
	webhooksPath = "/.well-known/webhooks.json"
)

// ownRoutes are what the site answers itself: documents, ingest, admin.
func (s *site) ownRoutes() []ownRoute {
	var own []ownRoute
	if slices.Contains(s.c.WellKnown, "jwks") {
		// An app may have keys of its own, so without keys to publish the path is the app's.
		own = append(own, ownRoute{
			func(r *http.Request) bool { return r.URL.Path == keysPath && len(s.f.o.WellKnown().Keys.Keys) > 0 },
			document("application/jwk-set+json", func() any { return s.f.o.WellKnown().Keys }),
		})
	}
	if slices.Contains(s.c.WellKnown, "webhooks") {
		own = append(own, ownRoute{
			func(r *http.Request) bool { return r.URL.Path == webhooksPath },
			document("application/json", s.webhooks),
		})
	}
	if s.c.ServesIngest() {
		guard := listen.Guard{Token: s.c.Token.Reveal(), AnyHost: true} // the front chose by host
		own = append(own, ownRoute{isForIngest, guard.Wrap(http.HandlerFunc(s.ingest))})
	}
	if s.c.ServesAdmin() && s.f.o.Admin != nil {
		own = append(own, ownRoute{func(*http.Request) bool { return true }, s.f.o.Admin})
	}
	return own
}

// isForIngest leaves what else is below /v1/events to the admin, and other methods to the app.
func isForIngest(r *http.Request) bool {
	return r.Method == http.MethodPost && (r.URL.Path == "/v1/events" || strings.HasPrefix(r.URL.Path, "/v1/events/"))
}

// document serves a value as JSON to GET and HEAD.
func document(kind string, of func() any) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET", http.StatusMethodNotAllowed)
			return
		}
		body, err := json.MarshalIndent(of(), "", "  ")
		if err != nil {
			http.Error(w, "the document cannot be written", http.StatusInternalServerError)
			return
		}
		h := w.Header()
		h.Set("Content-Type", kind)
		h.Set("Content-Length", strconv.Itoa(len(body)+1))
		h.Set("Cache-Control", "public, max-age=300")
		h.Set("Access-Control-Allow-Origin", "*") // it is public
		_, _ = w.Write(append(body, '\n'))        // a client that has gone asks again
	})
}

// webhooks is the content of webhooks.json.
func (s *site) webhooks() any {
	d := s.f.o.WellKnown()
	page := struct {
		Schemes    []string    `json:"schemes"`
		EventTypes []TypeShown `json:"event_types"`
		Addresses  []string    `json:"addresses,omitempty"`
		JWKS       string      `json:"jwks_uri,omitempty"`
	}{Schemes: d.Signs, EventTypes: d.Types, Addresses: s.c.Addresses}
	if len(d.Keys.Keys) > 0 && slices.Contains(s.c.WellKnown, "jwks") {
		page.JWKS = keysPath
	}
	return page
}

// ingest hands a request to ingest, as its own listeners do.
func (s *site) ingest(w http.ResponseWriter, r *http.Request) {
	if s.f.o.OnRequest != nil {
		s.f.o.OnRequest()
	}
	var attributes []ingest.Attribute
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		if short, ok := strings.CutPrefix(name, "Ce-"); ok && short != "" {
			for _, value := range r.Header[name] {
				attributes = append(attributes, ingest.Attribute{Name: strings.ToLower(short), Value: value})
			}
		}
	}
	ask := ingest.Request{
		Method:          r.Method,
		Path:            r.URL.Path,
		ContentType:     r.Header.Get("Content-Type"),
		ContentEncoding: strings.Join(r.Header["Content-Encoding"], ","),
		IdempotencyKey:  r.Header["Idempotency-Key"],
		Attributes:      attributes,
	}
	if parents := r.Header["Traceparent"]; len(parents) == 1 { // several are none: W3C Trace Context, section 3.2
		ask.TraceParent, ask.TraceState = parents[0], strings.Join(r.Header["Tracestate"], ",")
	}
	a := s.f.o.Ingest.HandleBody(r.Context(), &ask, r.Body)
	h := w.Header()
	h.Set("Content-Type", a.ContentType)
	h.Set("Content-Length", strconv.Itoa(len(a.Body)))
	for name, value := range map[string]string{"Allow": a.Allow, "WWW-Authenticate": a.Challenge} {
		if value != "" {
			h.Set(name, value)
		}
	}
	if a.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(a.RetryAfter))
	}
	if a.Close {
		h.Set("Connection", "close")
	}
	w.WriteHeader(a.Status)
	_, _ = w.Write(a.Body) // a client that has gone repeats the request
}

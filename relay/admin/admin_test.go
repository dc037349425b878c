package admin

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"relay/outbox"
)

type health struct{ err error }

func (h health) Health(context.Context) error { return h.err }

func TestHealth(t *testing.T) {
	stopping := errors.New("stopping")
	for _, c := range []struct {
		name, method, path string
		outbox             error
		ready              func() error
		code               int
		body               string
	}{
		{"live", "GET", "/healthz", nil, nil, 200, `"version":"v1"`},
		{"live while the outbox is down", "GET", "/healthz", outbox.ErrUnavailable, nil, 200, `"ok"`},
		{"ready", "GET", "/readyz", nil, nil, 200, `"ready"`},
		{"outbox full", "GET", "/readyz", outbox.ErrFull, nil, 503, "outbox is full"},
		{"stopping", "GET", "/readyz", nil, func() error { return stopping }, 503, "stopping"},
		{"wrong method", "POST", "/readyz", nil, nil, 405, ""},
		{"unknown path", "GET", "/v1/events", nil, nil, 404, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := New(Options{Outbox: health{c.outbox}, Version: "v1", Ready: c.ready})
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
			if w.Code != c.code || !strings.Contains(w.Body.String(), c.body) {
				t.Errorf("got %d %q, want %d with %q", w.Code, w.Body, c.code, c.body)
			}
			if c.code == http.StatusMethodNotAllowed && w.Header().Get("Allow") == "" {
				t.Error("405 without Allow")
			}
		})
	}
}

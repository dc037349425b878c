// Package admin is the operator's side: what runs, and is it well. It answers on
// its own listeners, never on those that take events.
package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// Outbox is what admin asks of the outbox.
type Outbox interface {
	Health(ctx context.Context) error
}

// Options of the handler.
type Options struct {
	Outbox  Outbox
	Version string
	Ready   func() error // nil when the rest of the process is ready, else what it waits for
}

// healthTimeout bounds a readiness check: a probe that hangs tells nothing.
const healthTimeout = 2 * time.Second

// New returns the handler of the admin routes.
//
//	GET /healthz  the process runs; never depends on the outbox or on receivers
//	GET /readyz   200 when an accept would succeed now, else 503 with the reason
func New(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, status{Status: "ok", Version: o.Version})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
		defer cancel()
		err := o.Outbox.Health(ctx)
		if err == nil && o.Ready != nil {
			err = o.Ready()
		}
		if err != nil {
			answer(w, http.StatusServiceUnavailable, status{Status: "not ready", Reason: err.Error()})
			return
		}
		answer(w, http.StatusOK, status{Status: "ready"})
	})
	return mux
}

// status is the body of both health routes.
type status struct {
	Status  string `json:"status"`
	Version string `json:"version,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

func answer(w http.ResponseWriter, code int, s status) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(s) // the client has gone: nobody is left to tell
}

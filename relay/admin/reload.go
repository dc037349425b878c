package admin

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"relay/ingest/problem"
)

// Reloaded is the answer of POST /v1/reload: what runs now, and how its endpoints
// differ from those before, by name.
type Reloaded struct {
	Generation int64    `json:"generation"` // 1 is the start; one more with each reload that was taken over
	Hash       string   `json:"hash"`       // of the settings of all endpoints, without secrets
	Changed    []string `json:"changed"`    // in the order of the file
	Added      []string `json:"added"`
	Removed    []string `json:"removed"` // what waits for them is held

	EventTypes []string `json:"event_types,omitempty"` // those that differ

	// LastChange is set where this reload changed nothing: the watch may have been first.
	LastChange *Change `json:"last_change,omitempty"`
}

// Differs tells whether endpoints or event types are not as before.
func (r *Reloaded) Differs() bool {
	return len(r.Changed)+len(r.Added)+len(r.Removed)+len(r.EventTypes) > 0
}

// Change is the last reload since the start that changed endpoints or event types.
type Change struct {
	Reloaded
	By string    `json:"by"` // watch, admin or SIGHUP
	At time.Time `json:"at"`
}

// Config is what /readyz says of the configuration that runs.
type Config struct {
	Generation int64     `json:"generation"`
	Hash       string    `json:"hash"`
	LoadedAt   time.Time `json:"loaded_at"`
	Error      string    `json:"error,omitempty"` // of the last reload, when it was refused; one line
}

// ReloadError is a reload that was refused whole: what ran before goes on.
type ReloadError struct {
	Code     problem.Code // problem.InvalidConfig or problem.NeedsRestart
	Problems []string     // at least one; with file, line and column where there are any
}

// Error is one line.
func (e *ReloadError) Error() string {
	first, _, _ := strings.Cut(e.Problems[0], "\n")
	if more := len(e.Problems) - 1; more > 0 {
		return fmt.Sprintf("%s (and %d more)", first, more)
	}
	return first
}

func (a *api) reload(w http.ResponseWriter, r *http.Request) {
	// Half a reload does not exist, so the client's going does not end it.
	done, err := a.Reload(context.WithoutCancel(r.Context()))
	if err != nil {
		refuse(w, err)
		return
	}
	answer(w, http.StatusOK, done)
}

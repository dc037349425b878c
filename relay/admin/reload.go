package admin

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"relay/ingest/problem"
	"relay/relay/audit"
)

// Reloaded is the answer of POST /v1/reload: the running configuration, and the names of the
// endpoints that changed.
type Reloaded struct {
	Generation int64    `json:"generation"` // 1 at the start; one more with each reload of files that had changed
	Hash       string   `json:"hash"`       // of the settings of all endpoints, without secrets
	Changed    []string `json:"changed"`    // in the order of the file
	Added      []string `json:"added"`
	Removed    []string `json:"removed"` // their pending deliveries are held

	EventTypes []string `json:"event_types,omitempty"` // those that differ

	// Lines are all changes in words, as relay diff has them: what they mean to endpoints, and settings, which are
	// indented. The last one says so if there are more than 1,000.
	Lines []string `json:"lines"`

	// LastChange is set if this reload changed nothing, because the watch may have been first.
	LastChange *Change `json:"last_change,omitempty"`
}

// Differs reports whether Relay does something else.
func (r *Reloaded) Differs() bool { return len(r.Lines) > 0 }

// Change is the last reload since the start that changed something.
type Change struct {
	Reloaded
	By string    `json:"by"` // watch, admin or SIGHUP
	At time.Time `json:"at"`
}

// Config is the running configuration in /readyz.
type Config struct {
	Generation int64     `json:"generation"`
	Hash       string    `json:"hash"`
	LoadedAt   time.Time `json:"loaded_at"`
	Error      string    `json:"error,omitempty"` // of the last reload, if it was refused; one line
}

// ReloadError is a refused reload; the old configuration stays.
type ReloadError struct {
	Code     problem.Code // problem.InvalidConfig or problem.NeedsRestart
	Problems []string     // at least one; with file, line and column if known
}

// Error is one line.
func (e *ReloadError) Error() string {
	first, _, _ := strings.Cut(e.Problems[0], "\n")
	if more := len(e.Problems) - 1; more > 0 {
		return fmt.Sprintf("%s (and %d more)", first, more)
	}
	return first
}

// mostAudited bounds the lines of a change in the audit, which keeps no long texts.
const mostAudited = 30

// brief is r with its first lines alone.
func (r Reloaded) brief() Reloaded {
	if more := len(r.Lines) - mostAudited; more > 0 {
		r.Lines = append(r.Lines[:mostAudited:mostAudited], fmt.Sprintf("and %d lines more", more))
	}
	return r
}

func (a *api) reload(w http.ResponseWriter, r *http.Request) {
	// A reload is whole or not at all, so it goes on if the client goes away.
	var before Config
	if a.Config != nil {
		before = a.Config()
	}
	done, err := a.Reload(context.WithoutCancel(r.Context()))
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	if done.Differs() {
		a.audit(r, audit.Entry{Verb: "reload", What: "configuration", Before: audit.State(struct {
			Generation int64  `json:"generation"`
			Hash       string `json:"hash"`
		}{before.Generation, before.Hash}), After: audit.State(done.brief())})
	}
	answer(w, http.StatusOK, done)
}

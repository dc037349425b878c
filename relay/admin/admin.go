// Package admin is the operator's HTTP surface: health, endpoints with their states and backlogs,
// and the configuration. It has listeners of its own, apart from those for events. It can pause,
// disable and enable endpoints, and reload the files.
//
// With a shared outbox it shows the fleet, too. Files of its Relays may differ (see package app).
// Differences are shown, here and in the log, and not resolved by Relay.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/rs/zerolog"

	"relay/outbox"
	"relay/policy"
	"relay/relay/alert"
	"relay/relay/backlog"
	"relay/relay/deliver"
	"relay/relay/explain"
	"relay/relay/jobs"
)

// Outbox is the part of the outbox that admin needs.
type Outbox interface {
	Health(ctx context.Context) error
	Counts(ctx context.Context) (map[string]outbox.Counts, error)
	Durability() string
	Fill(ctx context.Context) (float64, error)
}

// Deliverer is the part of deliver.Deliverer that admin needs.
type Deliverer interface {
	Status() []deliver.Status
	StatusOf(endpoint string) (deliver.Status, bool)
	Listen(hear func(*outbox.Item)) (stop func())
	Tell(*outbox.Item)
	Pause(ctx context.Context, endpoint, by string) (deliver.Status, error)
	Resume(ctx context.Context, endpoint, by string) (deliver.Status, error)
	Enable(ctx context.Context, endpoint, by string) (deliver.Status, error)
	EnableAgain(ctx context.Context, endpoint, by string) (deliver.Status, error)
	Disable(ctx context.Context, endpoint, by string) (deliver.Status, error)
}

// Fleet is the Relays that share the outbox.
type Fleet struct {
	Relays []Relay // those with a recent heartbeat, by number

	// Disagreements describes the different settings of Relays, by endpoint.
	Disagreements map[string]string
}

// Relay is one of the Relays that share the outbox.
type Relay struct {
	Number    int64             `json:"number"` // given when it joined; a restart gives another
	Host      string            `json:"host"`
	PID       int               `json:"pid"`
	Version   string            `json:"version"`
	Seen      time.Time         `json:"seen"` // its last heartbeat
	Self      bool              `json:"self"` // the answering Relay
	Endpoints map[string]string `json:"-"`    // hashes of their settings, by name
}

// Records is the part of the outbox that finds what is stored.
type Records interface {
	outbox.Reader
	outbox.History
	outbox.Statistics
}

// Options of the handler. Outbox, Deliverer and Policy must be given.
type Options struct {
	Outbox    Outbox
	Records   Records // nil: there are no routes of deliveries, events and statistics
	Edits     Edits   // with Records and Jobs; nil: there are no routes that change deliveries
	Jobs      *jobs.Jobs
	Deliverer Deliverer
	Engine    string                // of the outbox, as the file names it
	Policy    func() *policy.Policy // that runs now
	Version   string
	Ready     func() error   // nil if the rest of the process is ready, else the reason why not
	Log       zerolog.Logger // who changed what
	Metrics   http.Handler   // of GET /metrics; nil for none

	// Hush removes values that must not be shown from the reason why the outbox is not ready;
	// optional.
	Hush func(text string) string

	// Fleet asks the outbox for its Relays; nil if it is not shared. It obeys the context's
	// deadline.
	Fleet func(ctx context.Context) (Fleet, error)

	Clock outbox.Clock // of an outbox that has its own; nil for this process's

	Links func() Links // nil: no links

	Title func() string // of the page, "" for none, which tests name instead of Relay; optional

	// Alerts lists the alerts that fire; nil if the outbox keeps none.
	Alerts func(ctx context.Context) ([]alert.Firing, error)

	// Backlogs tells how many deliveries were not over, by hour: see backlog.History.Hours. nil: it is not known.
	Backlogs func(ctx context.Context, span outbox.Span, endpoint string) ([]backlog.Hour, error)

	Registry Registry // of endpoints made at run time; nil if the outbox keeps none

	// Reload reads the files again. Errors: *ReloadError, those of Refusal. nil if there are no files; there is
	// then no such route.
	Reload func(ctx context.Context) (Reloaded, error)

	Config func() Config // optional

	Running func() Running // nil: there is no route for it

	// Explain says who would get an event, a JSON text, of all endpoints or only of one. Errors: those of
	// Refusal, deliver.ErrNoEndpoint. nil: there is no route for it.
	Explain func(event []byte, endpoint string) (explain.Explanation, error)

	// Stopping is closed when the process stops, to end answers that have no end of their own; nil for never.
	Stopping <-chan struct{}

	// Test makes an attempt now, outside the queue: see deliver.Deliverer.Test.
	Test func(*policy.Endpoint, *outbox.Event) (deliver.Result, error)

	// Indexed tells whether the file that runs indexes a path of the data; nil: any path may be asked for.
	Indexed func(path string) bool

	Indexes func() []string // all paths that the file that runs indexes; nil: they are not listed
}

const (
	healthTimeout = 2 * time.Second        // a hanging probe is useless
	fleetTimeout  = 500 * time.Millisecond // the fleet is not essential, so it may be missing
	countsTimeout = 5 * time.Second        // for the counts of all endpoints
	changeTimeout = 10 * time.Second       // for the outbox to store a change
	recordTimeout = 10 * time.Second       // for finding what is stored
)

// Probes returns GET /healthz and /readyz for callers without a token, without reasons.
// Kubernetes cannot send a token, and a verb may have lost its configuration.
func Probes(o Options) http.Handler {
	a := &api{Options: o}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, Status{Status: "ok"})
	})
	mux.HandleFunc("GET /readyz", a.readyOrNot)
	return mux
}

// readyOrNot is readiness without anything else, as machines, files and endpoints of others.
func (a *api) readyOrNot(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
	defer cancel()
	if a.unready(ctx) != nil {
		answer(w, http.StatusServiceUnavailable, Status{Status: "not ready", Reason: "a token that may read the whole is needed to hear why"})
		return
	}
	answer(w, http.StatusOK, Status{Status: "ready"})
}

// api has a method for each route.
type api struct {
	Options
	tails *Crowd // readers of /v1/tail
	tests *Crowd // that are under way
}

// Status is the body of both health routes. Readiness also has the outbox, its Relays if known,
// and the running configuration, for information only.
type Status struct {
	Status        string            `json:"status"`
	Version       string            `json:"version,omitempty" bound:"-"`
	Reason        string            `json:"reason,omitempty"`
	Outbox        *OutboxStatus     `json:"outbox,omitempty"`
	Config        *Config           `json:"config,omitempty"`
	Relays        []Relay           `json:"relays,omitempty"`
	Disagreements map[string]string `json:"disagreements,omitempty"` // by endpoint
}

// OutboxStatus is the outbox in readiness.
type OutboxStatus struct {
	Engine     string `json:"engine"`
	Durability string `json:"durability"` // the level of a 202

	Fill *float64 `json:"fill,omitempty"` // how full it is, 0 to 1: at 1 events are refused

	// ClockAheadMS is how far this machine's clock is ahead of a shared outbox's, in
	// milliseconds; negative if it is behind.
	ClockAheadMS *int64 `json:"clock_ahead_ms,omitempty"`

	Spool *Spool `json:"spool,omitempty"` // of a shared outbox that has one

	// Warnings are what an operator should mend at the server of a shared outbox.
	Warnings []Warning `json:"warnings,omitempty"`
}

// Warning is one thing that an operator should mend.
type Warning struct {
	What string `json:"what"`
	Next string `json:"next,omitempty"` // what to do

	// Danger says that accepted events may be lost or are, or that none are accepted: more than what the operator chose or
	// has lived with since the start.
	Danger bool `json:"danger,omitempty"`
}

// warnings asks what the outbox knows; it calls no server.
func (a *api) warnings() []Warning {
	store, ok := a.Outbox.(outbox.Warned)
	if !ok {
		return nil
	}
	var all []Warning
	for _, w := range store.Warnings() {
		all = append(all, Warning{What: a.Hush(w.What), Next: w.Next, Danger: w.Danger})
	}
	return all
}

// Spool is where events go while the shared outbox is away. It counts requests.
type Spool struct {
	Used     bool   `json:"used"`    // events go through it now
	Waiting  int64  `json:"waiting"` // in it
	OldestMS int64  `json:"oldest_age_ms,omitempty"`
	Moved    int64  `json:"moved"`            // into the outbox, since it was made
	Refused  int64  `json:"refused"`          // by the outbox, for good
	Reason   string `json:"reason,omitempty"` // why nothing moves
}

// spool asks for the state of the spool, nil if there is none.
func (a *api) spool(ctx context.Context) *Spool {
	store, ok := a.Outbox.(outbox.Spooling)
	if !ok {
		return nil
	}
	now, err := store.Spool(ctx)
	if err != nil {
		return nil // the outbox is not ready, and says why
	}
	s := &Spool{Used: now.Used, Waiting: now.Waiting, Moved: now.Moved, Refused: now.Refused}
	if !now.Oldest.IsZero() {
		s.OldestMS = max(0, time.Since(now.Oldest).Milliseconds())
	}
	if now.Why != nil {
		s.Reason = a.Hush(now.Why.Error())
	}
	return s
}

func (a *api) healthz(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, Status{Status: "ok", Version: a.Version})
}

func (a *api) readyz(w http.ResponseWriter, r *http.Request) {
	if access := AccessOf(r.Context()); access.bound() || !access.Has(Read) {
		a.readyOrNot(w, r)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
	defer cancel()
	err := a.unready(ctx)
	reachable := !errors.Is(err, outbox.ErrUnavailable)
	s := Status{Status: "ready", Outbox: &OutboxStatus{Engine: a.Engine, Durability: a.Outbox.Durability()}}
	if a.Clock != nil {
		now := time.Now()
		s.Outbox.ClockAheadMS = new(now.Round(0).Sub(a.Clock.At(now)).Milliseconds())
	}
	s.Outbox.Spool = a.spool(ctx)
	s.Outbox.Warnings = a.warnings()
	if fill, err := a.Outbox.Fill(ctx); err == nil {
		s.Outbox.Fill = &fill
	}
	if a.Config != nil {
		s.Config = new(a.Config())
	}
	if reachable {
		if f, known := a.fleet(ctx); known {
			s.Relays, s.Disagreements = f.Relays, f.Disagreements
		}
	}
	code := http.StatusOK
	if err != nil {
		code, s.Status, s.Reason = http.StatusServiceUnavailable, "not ready", a.Hush(err.Error())
	}
	answer(w, code, s)
}

// unready says why an accept would fail now, nil if it would succeed.
func (a *api) unready(ctx context.Context) error {
	if err := a.Outbox.Health(ctx); err != nil || a.Ready == nil {
		return err
	}
	return a.Ready()
}

// fleet returns false if there is none or the outbox does not answer soon.
func (a *api) fleet(ctx context.Context) (Fleet, bool) {
	if a.Fleet == nil {
		return Fleet{}, false
	}
	ctx, cancel := context.WithTimeout(ctx, fleetTimeout)
	defer cancel()
	f, err := a.Fleet(ctx)
	return f, err == nil
}

// fleetOrError is fleet for what the files of other Relays decide: that a fleet does not answer soon says nothing of them.
// Without a fleet it is empty. Errors: those of Options.Fleet.
func (a *api) fleetOrError(ctx context.Context) (Fleet, error) {
	if a.Fleet == nil {
		return Fleet{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, countsTimeout)
	defer cancel()
	return a.Fleet(ctx)
}

func answer(w http.ResponseWriter, code int, body any) {
	write(w, code, "application/json", body)
}

func write(w http.ResponseWriter, code int, contentType string, body any) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)         // payloads stay as they came
	_ = e.Encode(shownTo(w, body)) // an error is a client that has gone
}

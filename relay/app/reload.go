package app

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"relay/config"
	"relay/ingest/problem"
	"relay/outbox"
	"relay/policy"
	"relay/relay/admin"
	"relay/relay/explain"
	"relay/relay/front"
)

// live is the part of an App that a reload replaces, as a whole.
type live struct {
	policy     *policy.Policy
	config     config.Config // what needs a restart is as at the start
	digest     config.Digest // of the files
	hash       string        // of the policy
	generation int64         // 1 at the start
	tokens     *admin.Tokens
	at         time.Time
	documents  func() front.Documents
	files      []string      // that it was read from
	change     *admin.Change // the last one; nil if there was none since the start
}

// seen is the state of the files when they were last read, valid or not.
type seen struct {
	digest config.Digest
	err    string
}

// tellTimeout is how long a reload waits for the outbox to tell the fleet.
const tellTimeout = 2 * time.Second

// errUnchanged: the files are those that were last read.
var errUnchanged = errors.New("the files have not changed")

// Reload reads the files again and replaces the whole configuration, or refuses the new one as a
// whole (promise P12): all steps that can fail come first, then one swap. Unchanged endpoints
// keep their connections, attempts under way end as they began, and the pending deliveries of
// removed endpoints are held. by names the caller, for the log. Errors: *admin.ReloadError, and a
// refusal while Relay stops; the old configuration then stays.
func (a *App) Reload(ctx context.Context, by string) (admin.Reloaded, error) {
	return a.reload(ctx, by, false)
}

// reload reads the files and applies them. With onlyOthers it returns errUnchanged if the
// files are those read last.
func (a *App) reload(ctx context.Context, by string, onlyOthers bool) (admin.Reloaded, error) {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	if a.stopping.Load() {
		return admin.Reloaded{}, admin.Refusal(problem.New(problem.Overloaded, "this Relay stops: its next start reads the files"))
	}
	start := time.Now()
	if a.o.Load == nil {
		return admin.Reloaded{}, a.refuse(by, problem.InvalidConfig, "this Relay was not started from files: there is nothing to read again")
	}
	before := a.seen
	defer debug.FreeOSMemory() // with many endpoints, reading the files uses more memory than the result
	file, p, err := a.o.Load()
	a.noteFiles(file, err)
	if onlyOthers && a.seen == before {
		return admin.Reloaded{}, errUnchanged
	}
	call(a.o.Hooks.Reloading)
	var done admin.Reloaded
	if err != nil {
		err = a.refuse(by, problem.InvalidConfig, problems(err)...)
	} else {
		done, err = a.takeOver(ctx, by, start, read{file, p})
	}
	if told := a.o.Hooks.Reloaded; told != nil {
		told(err)
	}
	return done, err
}

// read is what the files said.
type read struct {
	file   *config.File
	policy *policy.Policy
}

// takeOver replaces the configuration by the one that was read, since start, or refuses it.
func (a *App) takeOver(ctx context.Context, by string, start time.Time, r read) (admin.Reloaded, error) {
	file, p := r.file, r.policy
	if blocks := config.NeedRestart(a.o.Config, file.Config); len(blocks) > 0 {
		return admin.Reloaded{}, a.refuse(by, problem.NeedsRestart, needRestart(blocks)...)
	}

	made, misfits := a.madeFor(p)
	if misfits != nil {
		return admin.Reloaded{}, a.refuse(by, problem.InvalidConfig, misfits...)
	}
	fronts, err := a.front.Prepare(ctx, file.Config.Fronts, file.Config.ACME)
	if err != nil {
		return admin.Reloaded{}, a.refuse(by, problem.InvalidConfig, file.Config.Hush(err.Error()))
	}
	p = made()

	old := a.live.Load()
	p.Adopt(old.policy)
	now := &live{
		policy: p, hash: p.Hash(), config: file.Config, digest: file.Digest(), generation: old.generation, at: old.at,
		files: file.Paths, change: old.change, documents: documentsOf(p), tokens: a.tokensOf(file.Config.Admin),
	}
	if now.digest != old.digest { // what env() gives is that of the start
		now.generation, now.at = old.generation+1, time.Now()
	}
	done := differences(old, now)
	done.Generation, done.Hash = now.generation, now.hash
	if done.Differs() {
		now.change = &admin.Change{Reloaded: done, By: by, At: now.at.UTC()}
	} else {
		done.LastChange = now.change
	}
	a.refused.Store(nil) // first, so that nobody sees the new configuration with the last error
	a.live.Store(now)
	a.deliverer.Apply(p)
	if a.o.Hush != nil {
		a.o.Hush(file.Config.Hushes())
	}
	fronts.Apply()

	for _, w := range file.Warnings {
		a.o.Log.Warn().Msg(w)
	}
	a.o.Log.Info().Str("by", by).Int64("generation", done.Generation).Str("hash", done.Hash).
		Int("endpoints", len(p.Endpoints)).Dur("took", time.Since(start)).Msg("reloaded: " + summary(done))
	a.tellFleet(ctx, p)
	if holdsMore(old.policy, p) {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		a.warnHeld(ctx)
	}
	return done, nil
}

// noteFiles remembers the files that were read. After an error some may be unknown, so the
// previously known ones stay. The caller holds reloading, or is the first.
func (a *App) noteFiles(f *config.File, err error) {
	a.seen = seen{}
	if err != nil {
		a.seen.err = err.Error()
	} else {
		a.reads = nil
	}
	if f != nil {
		a.seen.digest = f.Digest()
		all := slices.Concat(a.reads, f.Reads())
		slices.Sort(all)
		a.reads = slices.Compact(all)
	}
}

// refuse keeps the running configuration, and logs why.
func (a *App) refuse(by string, code problem.Code, problems ...string) error {
	e := &admin.ReloadError{Code: code, Problems: problems}
	a.refused.Store(e)
	next := "mend the file: relay check shows all that is wrong"
	if code == problem.NeedsRestart {
		next = "restart Relay, or take the change back"
	}
	a.o.Log.Error().Str("by", by).Str("code", string(code)).Str("error", e.Error()).Str("next", next).
		Msg("reload refused: the configuration that runs stays")
	return e
}

// problems are the lines of an error, one for each problem.
func problems(err error) []string {
	d, ok := errors.AsType[config.Diagnostics](err)
	if !ok {
		return []string{err.Error()}
	}
	lines := make([]string, len(d))
	for i, p := range d {
		lines[i] = p.String()
	}
	return lines
}

// needRestart is an error for each block that needs a restart. It shows no values, because some
// are secret.
func needRestart(blocks []string) []string {
	problems := make([]string, len(blocks))
	for i, name := range blocks {
		what := name + " block"
		if name == "secrets_key" {
			what = name
		}
		problems[i] = fmt.Sprintf("the %s is not what this Relay was started with: restart to change it; nothing of the file was taken over", what)
	}
	return problems
}

// maxTold bounds the lines that tell a change.
const maxTold = 1000

// differences tells what changed.
func differences(old, now *live) admin.Reloaded {
	d := admin.Reloaded{Changed: []string{}, Added: []string{}, Removed: []string{}, Lines: []string{}}
	changes := explain.Compare(old.config, now.config, old.policy, now.policy)
	for _, c := range changes.Endpoints {
		switch c.Kind {
		case policy.Added:
			d.Added = append(d.Added, c.Name)
		case policy.Changed:
			d.Changed = append(d.Changed, c.Name)
		case policy.Removed:
			d.Removed = append(d.Removed, c.Name)
		}
	}
	for _, c := range changes.Types {
		d.EventTypes = append(d.EventTypes, c.Type)
	}
	d.Lines = append(d.Lines, changes.Lines()...)
	if more := len(d.Lines) - maxTold; more > 0 {
		d.Lines = append(d.Lines[:maxTold:maxTold], fmt.Sprintf("and %d lines more", more))
	}
	return d
}

// holdsMore reports whether an endpoint takes deliveries in the old policy and not in the new.
func holdsMore(old, now *policy.Policy) bool {
	return slices.ContainsFunc(old.Endpoints, func(before *policy.Endpoint) bool {
		e := now.Endpoint(before.Name)
		return before.Enabled && (e == nil || !e.Enabled)
	})
}

// maxNamed bounds the endpoints of a kind that a log line names.
const maxNamed = 10

// summary describes the changes of a reload.
func summary(d admin.Reloaded) string {
	var parts []string
	for _, kind := range []struct {
		what  string
		names []string
	}{{"changed", d.Changed}, {"added", d.Added}, {"removed", d.Removed}, {"other event types:", d.EventTypes}} {
		n := len(kind.names)
		if n == 0 {
			continue
		}
		part := kind.what + " " + strings.Join(kind.names[:min(n, maxNamed)], ", ")
		if n > maxNamed {
			part += fmt.Sprintf(" and %d more", n-maxNamed)
		}
		parts = append(parts, part)
	}
	switch {
	case len(parts) == 0 && len(d.Lines) > 0:
		return "no endpoint differs, but other settings"
	case len(parts) == 0:
		return "no endpoint differs"
	}
	return strings.Join(parts, "; ")
}

// tellFleet tells the other Relays of a shared outbox this one's settings.
func (a *App) tellFleet(ctx context.Context, p *policy.Policy) {
	shared, ok := a.store.(outbox.Fleet)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	if err := shared.SetEndpoints(ctx, p.Hashes()); err != nil {
		a.o.Log.Warn().Err(err).Msg("the other Relays of the outbox do not know of the reload yet: they are told when it answers")
	}
}

// configStatus is for /readyz.
func (a *App) configStatus() admin.Config {
	now := a.live.Load()
	c := admin.Config{Generation: now.generation, Hash: now.hash, LoadedAt: now.at.UTC()}
	if e := a.refused.Load(); e != nil {
		c.Error = e.Error()
	}
	return c
}

// reloadRoute is nil if there are no files to reload.
func (a *App) reloadRoute() func(context.Context) (admin.Reloaded, error) {
	if a.o.Load == nil {
		return nil
	}
	return func(ctx context.Context) (admin.Reloaded, error) { return a.Reload(ctx, "admin") }
}

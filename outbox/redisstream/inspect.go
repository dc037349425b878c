package redisstream

import (
	"context"
	"errors"
	"slices"
	"time"

	"relay/outbox"
)

const (
	// inspectEvery is how old the last look at the settings of Redis may be.
	inspectEvery = 5 * time.Minute

	// inspectSoon is the same while they are not right or could not be seen, so that events are accepted soon after they
	// were set right.
	inspectSoon = 5 * time.Second

	// inspectTimeout is for one look; it may measure the disk.
	inspectTimeout = 30 * time.Second
)

// inspection is what was seen last of the settings of Redis.
type inspection struct {
	findings []Finding
	first    []Finding // of the first look, which the operator lives with
	unfit    error     // why no events are accepted, nil while Redis keeps what is promised
}

// keepInspecting looks at the settings again: at once when a server has another run id, because it was restarted or another one
// is the master now, and every few minutes, because settings can change while a server runs.
func (s *Store) keepInspecting() {
	every, another := inspectEvery, false
	for {
		t := time.NewTimer(every)
		select {
		case <-s.replaced:
			another = true
		case <-t.C:
		case <-s.stop:
			t.Stop()
			return
		}
		t.Stop()
		ctx, cancel := context.WithTimeout(context.Background(), inspectTimeout)
		err := s.inspect(ctx, another)
		cancel()
		another = another && err != nil
		if every = inspectEvery; err != nil || s.unfit() != nil {
			every = inspectSoon
		}
	}
}

// errReplica: what answers is not the master, or not yet.
var errReplica = errors.New("the server is a replica")

// inspect looks at the settings, and measures again whether WAITAOF tells the truth if another server may answer. An
// error says that they could not be seen.
func (s *Store) inspect(ctx context.Context, another bool) error {
	s.lookAtStrays(ctx)
	s.mu.Lock()
	o := s.o
	o.measured = s.confirm.waitAOF && !another && s.inspected.unfit == nil
	s.mu.Unlock()
	found, err := probe(ctx, s.conn, o)
	if err != nil {
		return err // the heartbeat says so
	}
	if found.replica {
		return errReplica // it refuses writes itself
	}
	s.inspectedAs(found)
	return nil
}

// inspectedAs keeps what was found, and logs what is new of it.
func (s *Store) inspectedAs(found Findings) {
	refusal := found.Refusal()
	s.mu.Lock()
	before := s.inspected
	s.inspected = inspection{findings: found.List, first: before.first}
	if before.first == nil {
		s.inspected.first = found.List
	}
	if refusal == nil {
		s.confirm = found.confirm
	} else {
		what, _ := advice("unfit")
		s.inspected.unfit = &fault{kind: outbox.ErrUnavailable, code: "unfit", what: what, next: refusal.Error()}
	}
	s.mu.Unlock()
	for _, f := range found.List {
		if f.Level == levelWarn && !slices.Contains(before.findings, f) {
			s.log.Warn().Str("next", f.Next).Msg(f.What)
		}
	}
	switch {
	case refusal != nil && (before.unfit == nil || !slices.Equal(before.findings, found.List)):
		s.log.Error().Str("code", "unfit").Err(refusal).Msg("redis may lose accepted events: none are accepted until this is set right, and deliveries go on")
	case refusal == nil && before.unfit != nil:
		s.log.Info().Msg("the settings of redis are right again: events are accepted")
	}
}

// unfit says why Redis must be given no events, nil while it may.
func (s *Store) unfit() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inspected.unfit
}

// Warnings implements outbox.Warned: what was seen of the settings of Redis at the start, after the last change of its master or
// some minutes ago, and keys that somebody overwrote.
func (s *Store) Warnings() []outbox.Warning {
	s.mu.Lock()
	seen := s.inspected
	s.mu.Unlock()
	var all []outbox.Warning
	for _, f := range seen.findings {
		if f.Level != levelOK {
			all = append(all, outbox.Warning{What: f.What, Next: f.Next, Danger: f.Danger || seen.isWorse(f)})
		}
	}
	return append(all, s.strayWarning()...)
}

// isWorse tells whether the first look did not see a finding, of this server or another one.
func (i *inspection) isWorse(f Finding) bool {
	return !slices.ContainsFunc(i.first, func(before Finding) bool { return before.Level == f.Level && before.Next == f.Next })
}

// answers notes which process answers for the shard, "" if that may not be asked.
func (sh *shard) answers(runID string) {
	before := sh.runID
	sh.runID = runID
	if before == "" || runID == "" || before == runID {
		return
	}
	select {
	case sh.s.replaced <- struct{}{}:
	default: // it will look anyway
	}
}

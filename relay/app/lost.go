package app

import (
	"context"
	"errors"
	"path/filepath"
	"time"
)

// lookEvery is how often Relay checks whether its files were removed or replaced.
const lookEvery = 2 * time.Second

// losable is an outbox with files that somebody may take away.
type losable interface {
	Lost() error // nil while they are in their place
}

// renewable is a listener at a file that somebody may take away.
type renewable interface {
	Check(ctx context.Context) (renewed bool, err error)
}

// missing lists files that are not in their place.
type missing struct {
	outbox  error // nothing is accepted
	sockets error
}

func (m *missing) Error() string { return errors.Join(m.outbox, m.sockets).Error() }

// look makes removed sockets again, and notes the other files that are missing. It never makes
// the outbox's folder, because an empty one would hide the loss.
func (a *App) look(ctx context.Context) {
	var now missing
	home := "" // of the outbox, while that is lost
	if store, ok := a.store.(losable); ok {
		if now.outbox = store.Lost(); now.outbox != nil {
			home = absolute(a.o.Config.Outbox.Path)
		}
	}
	var errs []error
	for _, s := range a.servers {
		socket, ok := s.ln.(renewable)
		if !ok || absolute(filepath.Dir(s.ln.Addr().String())) == home {
			continue
		}
		renewed, err := socket.Check(ctx)
		if renewed {
			a.o.Log.Warn().Str("component", s.name).Msgf("the socket %s was gone: it is made again. Something cleans its folder", s.ln.Addr())
		}
		errs = append(errs, err)
	}
	now.sockets = errors.Join(errs...)
	a.noteMissing(&now)
}

// noteMissing logs changes.
func (a *App) noteMissing(now *missing) {
	if now.outbox == nil && now.sockets == nil {
		now = nil
	}
	before := a.missing.Swap(now)
	switch {
	case now != nil && (before == nil || before.Error() != now.Error()):
		a.o.Log.Error().Err(now).Msg("files of this Relay are not in their place")
	case now == nil && before != nil:
		a.o.Log.Info().Msg("the files of this Relay are in their place again")
	}
}

// lostOutbox says why nothing can be accepted, nil while it can.
func (a *App) lostOutbox() error {
	if m := a.missing.Load(); m != nil {
		return m.outbox
	}
	if !a.complete.Load() {
		return errors.New("endpoints made at run time are not known yet")
	}
	return nil
}

func absolute(path string) string {
	if whole, err := filepath.Abs(path); err == nil {
		return whole
	}
	return path
}

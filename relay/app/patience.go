package app

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"relay/ingest/listen"
	"relay/outbox"
)

// retryTaken is the time between tries to open something that another process still has.
const retryTaken = 50 * time.Millisecond

// patiently opens something that another process may be about to free: the outbox, a socket, a
// port. A supervisor may start a Relay while the kernel still ends the last one. All calls share
// one LockWait.
func patiently[T any](ctx context.Context, a *App, open func() (T, error)) (T, error) {
	told := false
	for {
		got, err := open()
		left := a.o.LockWait - a.waited
		switch {
		case err == nil || !taken(err):
			return got, err
		case left <= 0 && told:
			return got, fmt.Errorf("%w (waited for %s)", err, a.o.LockWait)
		case left <= 0:
			return got, err
		case !told:
			told = true
			a.o.Log.Warn().Err(err).Msgf("waiting up to %s for what another process has", a.o.LockWait)
		}
		wait := min(left, retryTaken)
		a.waited += wait
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return got, errors.Join(err, context.Cause(ctx))
		}
	}
}

// taken reports whether opening failed because another process has it.
func taken(err error) bool {
	return errors.Is(err, outbox.ErrLocked) || errors.Is(err, listen.ErrAnswered) || errors.Is(err, syscall.EADDRINUSE)
}

// Package throttle limits log lines that repeat: the first of a kind is written, then at
// most one for each interval, which says how many were left out.
package throttle

import (
	"sync"
	"time"
)

// Lines throttles lines of several kinds, each by itself. It keeps an entry for each kind
// for ever, so kinds are few: codes, not texts of errors. Its methods may be called at the
// same time.
type Lines struct {
	Every time.Duration // between lines of one kind

	mu   sync.Mutex
	seen map[string]*kind
}

type kind struct {
	last    time.Time // when a line was written
	skipped int       // lines since then
}

// Allow reports whether a line of this kind may be written now, and how many of its kind were
// left out since the last one that was. A caller that gets false writes nothing.
func (l *Lines) Allow(name string) (repeats int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	k, known := l.seen[name]
	if !known {
		if l.seen == nil {
			l.seen = map[string]*kind{}
		}
		l.seen[name] = &kind{last: now}
		return 0, true
	}
	if now.Sub(k.last) < l.Every {
		k.skipped++
		return 0, false
	}
	repeats = k.skipped
	*k = kind{last: now}
	return repeats, true
}

package app

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"relay/config"
)

// gate is a writer that a test can stop, and whose writes it can make fail.
type gate struct {
	mu      sync.Mutex
	text    strings.Builder
	open    chan struct{} // a write waits for it
	fail    error
	partial int // bytes that a write takes before it fails
	writes  int
}

func newGate() *gate {
	g := &gate{open: make(chan struct{})}
	close(g.open)
	return g
}

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	g.writes++
	if g.fail != nil {
		n := min(g.partial, len(p))
		g.text.Write(p[:n])
		return n, g.fail
	}
	g.text.Write(p)
	return len(p), nil
}

func line(n int) string { return fmt.Sprintf("line %d %s\n", n, strings.Repeat("x", 1000)) }

// Nobody waits for a writer that takes nothing. Later it takes whole lines in
// their order, and one that says how many are missing.
func TestLinesNeverWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		g.open = make(chan struct{})
		l := NewLines(g)
		const all = 5000
		start := time.Now()
		for n := range all {
			io.WriteString(l, line(n))
			if n == 0 {
				synctest.Wait() // the first one is on its way, and hangs
			}
		}
		l.Flush(time.Second)
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %v", took)
		}
		dropped := int(l.Dropped())
		if kept := all - dropped; kept < 1000 || kept > 1100 {
			t.Errorf("%d of %d lines were kept, 1 MiB is 1038", kept, all)
		}
		close(g.open)
		l.Flush(time.Hour)
		io.WriteString(l, "after\n")
		l.Flush(time.Hour)
		var want strings.Builder
		for n := range all - dropped {
			want.WriteString(line(n))
		}
		fmt.Fprintf(&want, "relay: %d lines were lost: nobody read them\nafter\n", dropped)
		if g.text.String() != want.String() {
			t.Errorf("%d bytes were written, want %d; the end is %q", g.text.Len(), want.Len(), tail(g.text.String()))
		}
	})
}

func tail(s string) string { return s[max(0, len(s)-200):] }

// A reader that goes away and comes back: lines are lost meanwhile, are counted, and flow
// again by themselves.
func TestLinesSurviveErrors(t *testing.T) {
	for _, fail := range []error{syscall.EPIPE, syscall.EIO, io.ErrClosedPipe} {
		t.Run(fail.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate()
				l := NewLines(g)
				io.WriteString(l, "before\n")
				l.Flush(time.Hour)
				g.fail = fail
				for range 3 {
					io.WriteString(l, "lost\n")
					l.Flush(time.Hour)
				}
				if g.writes != 4 {
					t.Errorf("%d writes, want 4", g.writes)
				}
				time.Sleep(time.Hour)
				if g.writes != 4 {
					t.Errorf("idle, it was written to %d times", g.writes-4)
				}
				g.fail = nil
				io.WriteString(l, "after\n")
				l.Flush(time.Hour)
				if got, want := g.text.String(), "before\nrelay: 3 lines were lost: nobody read them\nafter\n"; got != want {
					t.Errorf("got %q, want %q", got, want)
				}
				if n := l.Dropped(); n != 3 {
					t.Errorf("%d lines dropped, want 3", n)
				}
			})
		})
	}
}

// A writer that refuses is left alone for a second, however many lines come.
func TestLinesLeaveABrokenWriterAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		g.fail = syscall.EPIPE
		l := NewLines(g)
		for range 1000 {
			io.WriteString(l, "lost\n")
			time.Sleep(10 * time.Millisecond)
		}
		l.Flush(time.Hour)
		if g.writes > 12 {
			t.Errorf("%d writes in 10 s", g.writes)
		}
		if n := l.Dropped(); n != 1000 {
			t.Errorf("%d lines dropped, want 1000", n)
		}
	})
}

// A line of which a part was written does not run into the next one.
func TestLinesAfterAPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		g.fail, g.partial = syscall.ENOSPC, 4
		l := NewLines(g)
		io.WriteString(l, "torn line\n")
		l.Flush(time.Hour)
		g.fail = nil
		io.WriteString(l, "next\n")
		l.Flush(time.Hour)
		if got, want := g.text.String(), "torn\nrelay: 1 lines were lost: nobody read them\nnext\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// EAGAIN is no loss: the rest goes out when there is room.
func TestLinesOfANonBlockingWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		g.fail, g.partial = syscall.EAGAIN, 3
		l := NewLines(g)
		for n := range 5 {
			fmt.Fprintf(l, "line %d\n", n)
		}
		time.Sleep(time.Millisecond)
		g.mu.Lock()
		g.partial = 0
		g.mu.Unlock()
		time.Sleep(time.Minute)
		g.mu.Lock()
		if g.writes > 100 {
			t.Errorf("%d writes in a minute", g.writes)
		}
		g.fail = nil
		g.mu.Unlock()
		l.Flush(time.Hour)
		if got, want := g.text.String(), "line 0\nline 1\nline 2\nline 3\nline 4\n"; got != want || l.Dropped() != 0 {
			t.Errorf("got %q and %d lost, want %q", got, l.Dropped(), want)
		}
	})
}

// The line about lost ones has the form of the others, whatever the level.
func TestLoggerTellsOfLostLines(t *testing.T) {
	for _, format := range []string{"json", "console"} {
		synctest.Test(t, func(t *testing.T) {
			g := newGate()
			g.fail = syscall.EPIPE
			l := NewLines(g)
			log := NewLogger(config.Log{Level: "error", Format: format}, l)
			log.Error().Msg("one")
			l.Flush(time.Hour)
			g.fail = nil
			log.Error().Msg("two")
			l.Flush(time.Hour)
			want := map[string]string{
				"json":    `{"level":"warn","lines":1,"time":"2000-01-01T00:00:00.000Z","message":"lines of this log were lost: they were not read fast enough, or could not be written"}`,
				"console": "WRN lines of this log were lost: they were not read fast enough, or could not be written lines=1",
			}[format]
			if got, _, _ := strings.Cut(g.text.String(), "\n"); !strings.HasSuffix(got, want) {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

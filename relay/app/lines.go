package app

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"
)

const (
	maxLines   = 1 << 20          // bytes of lines that wait to be written
	keepLines  = 64 << 10         // of an empty buffer that is kept for the next ones
	afterError = time.Second      // until a writer that refused lines is tried again
	fullFirst  = time.Millisecond // until one that takes nothing now is tried again; doubled each time
	fullMost   = time.Second
)

// Lines writes log lines, and nobody ever waits for it: a line goes into a buffer, from which
// a goroutine writes. The goroutine lives while there is something to write, so an idle
// Lines costs nothing and needs no Close.
//
// A line for which there is no room is dropped, and so are those that the writer refuses (a
// pipe whose reader is gone). They are counted, and when lines flow again one of them says
// how many were lost.
type Lines struct {
	to io.Writer

	mu      sync.Mutex
	waiting []byte // lines
	notice  notice // with which waiting begins
	spare   []byte // the buffer that was written before
	busy    bool   // the goroutine lives, or a timer will start it
	flushed chan struct{}
	retryAt time.Time // when the writer may be tried again after an error
	lost    uint64    // lines that no notice tells of yet
	dropped uint64    // lines, all
	tell    func(w io.Writer, lost uint64)
	hush    func(text string) string // nil to write lines as they are

	torn bool // what was written last has no line end; belongs to the goroutine
}

// notice is a line that says how many were lost; the zero value is none.
type notice struct {
	length int
	lost   uint64
}

// NewLines returns Lines that write to w, which must not keep what it is given. Nothing else
// is to write to it.
func NewLines(w io.Writer) *Lines {
	idle := make(chan struct{})
	close(idle)
	return &Lines{to: w, flushed: idle, tell: func(w io.Writer, lost uint64) {
		fmt.Fprintf(w, "relay: %d lines were lost: nobody read them\n", lost)
	}}
}

// setTell replaces how the line about lost ones is written.
func (l *Lines) setTell(tell func(w io.Writer, lost uint64)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tell = tell
}

// Hush has everything that is written from now on go through a function, which takes out
// of it what must not be shown.
func (l *Lines) Hush(hush func(text string) string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hush = hush
}

// Dropped counts the lines that were lost so far.
func (l *Lines) Dropped() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped
}

// Write takes whole lines and never blocks. There is no error.
func (l *Lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := len(p)
	if l.hush != nil {
		p = []byte(l.hush(string(p)))
	}
	// What is lost is one piece: after the first line that does not fit none is taken
	// before those that wait are on their way.
	if l.lost > 0 && len(l.waiting) > 0 || len(l.waiting)+len(p) > maxLines {
		n := uint64(max(bytes.Count(p, []byte("\n")), 1))
		l.lost += n
		l.dropped += n
		return taken, nil
	}
	l.announce()
	l.waiting = append(l.waiting, p...)
	if l.busy {
		return taken, nil
	}
	l.busy = true
	l.flushed = make(chan struct{})
	if wait := time.Until(l.retryAt); wait > 0 {
		time.AfterFunc(wait, l.run)
	} else {
		go l.run()
	}
	return taken, nil
}

// announce begins what waits with a line about what was lost.
func (l *Lines) announce() {
	if l.lost == 0 {
		return
	}
	var b bytes.Buffer
	l.tell(&b, l.lost)
	l.waiting = append(l.waiting, b.Bytes()...)
	l.notice = notice{b.Len(), l.lost}
	l.lost = 0
}

// Flush waits until everything is written, at most so long.
func (l *Lines) Flush(atMost time.Duration) {
	l.mu.Lock()
	flushed := l.flushed
	l.mu.Unlock()
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-flushed:
	case <-timer.C:
	}
}

// run writes until nothing waits.
func (l *Lines) run() {
	for {
		p, about, ok := l.take()
		if !ok {
			return
		}
		n, err := l.write(p)
		l.written(p, n, about, err)
	}
}

// take returns what waits, which begins with a notice. What the writer is not to be tried
// with yet stays.
func (l *Lines) take() (p []byte, about notice, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	wait := time.Until(l.retryAt)
	if len(l.waiting) == 0 && wait <= 0 {
		l.announce()
	}
	switch {
	case len(l.waiting) == 0:
		l.busy = false
		close(l.flushed)
		return nil, notice{}, false
	case wait > 0:
		time.AfterFunc(wait, l.run)
		return nil, notice{}, false
	}
	p, about = l.waiting, l.notice
	l.waiting, l.spare, l.notice = l.spare[:0], nil, notice{}
	return p, about, true
}

// written counts what of p was lost after n bytes because of the error.
func (l *Lines) written(p []byte, n int, about notice, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if cap(p) <= keepLines {
		l.spare = p[:0]
	}
	if err == nil {
		return
	}
	l.retryAt = time.Now().Add(afterError)
	if n < about.length { // it was not told
		l.lost += about.lost
		n = about.length
	}
	lines := uint64(bytes.Count(p[n:], []byte("\n")))
	l.lost += lines
	l.dropped += lines
}

// write returns how many bytes of p were written.
func (l *Lines) write(p []byte) (written int, err error) {
	full := fullFirst
	for written < len(p) {
		rest, ended := p[written:], l.torn
		if ended {
			rest = []byte("\n") // of the line of which a part was written
		}
		n, err := l.to.Write(rest)
		if n > 0 {
			l.torn = false
			full = fullFirst
		}
		if n > 0 && !ended {
			written += n
		}
		switch {
		case err == nil:
		case errors.Is(err, syscall.EAGAIN): // somebody made it non-blocking, and it is full
			time.Sleep(full)
			full = min(2*full, fullMost)
		default:
			l.torn = l.torn || written > 0 && p[written-1] != '\n'
			return written, err
		}
	}
	return written, nil
}

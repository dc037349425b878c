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
	maxLines   = 1 << 20          // bytes of waiting lines
	keepLines  = 64 << 10         // capacity of an empty buffer that is kept for reuse
	afterError = time.Second      // until the next try after the writer returned an error
	fullFirst  = time.Millisecond // until the next try after EAGAIN; doubled each time
	fullMost   = time.Second
)

// Lines writes log lines without making the caller wait: a line goes into a buffer, from which a
// goroutine writes. The goroutine lives while there is something to write, so an idle Lines costs
// nothing and needs no Close.
//
// Lines are dropped if the buffer is full or the writer returns an error (a pipe without a
// reader). They are counted, and the next line that can be written says how many were lost.
type Lines struct {
	to io.Writer

	mu      sync.Mutex
	waiting []byte // lines
	notice  notice // at the start of waiting
	spare   []byte // the buffer that was written last
	busy    bool   // the goroutine runs, or a timer will start it
	flushed chan struct{}
	retryAt time.Time // when the writer may be tried again after an error
	lost    uint64    // lines that no notice mentions yet
	dropped uint64    // lines, all
	tell    func(w io.Writer, lost uint64)
	hush    func(text string) string // nil to write lines as they are

	torn bool // the last write ended within a line; used by the goroutine only
}

// notice is a line that says how many were lost; the zero value is none.
type notice struct {
	length int
	lost   uint64
}

// NewLines returns Lines that write to w, which must not keep the slice. Nothing else may write
// to w.
func NewLines(w io.Writer) *Lines {
	idle := make(chan struct{})
	close(idle)
	return &Lines{to: w, flushed: idle, tell: func(w io.Writer, lost uint64) {
		fmt.Fprintf(w, "relay: %d lines were lost: nobody read them\n", lost)
	}}
}

// setTell replaces the writer of the notice about lost lines.
func (l *Lines) setTell(tell func(w io.Writer, lost uint64)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tell = tell
}

// Hush applies a function to everything that is written from now on, which removes values that
// must not be shown.
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
	// The lost lines are consecutive: after the first line that does not fit, none is taken until
	// the waiting ones are being written.
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

// announce begins the waiting lines with a notice about lost ones.
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

// take returns the waiting lines, with the notice at their start. It returns none before retryAt.
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

// written counts the lines of p that were lost because the writer failed after n bytes.
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
			rest = []byte("\n") // of a line that was written in part
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
		case errors.Is(err, syscall.EAGAIN): // another process made the file non-blocking, and it is full
			time.Sleep(full)
			full = min(2*full, fullMost)
		default:
			l.torn = l.torn || written > 0 && p[written-1] != '\n'
			return written, err
		}
	}
	return written, nil
}

// Package testkit holds what tests of many packages need: a log that is read
// while it is written, waits that end, and secrets.
package testkit

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"
)

// Secrets of endpoints, of 24 and 32 bytes. They are well-formed and differ.
const (
	Secret      = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
	OtherSecret = "whsec_b3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgb3RoZXI="
)

const (
	patience  = time.Minute // for what must come, on a loaded machine
	pollEvery = 5 * time.Millisecond
)

// Log is a writer that can be read at any time, from any goroutine.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write appends a line.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String returns all that was written so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Take returns what was written since the last Take, and forgets it.
func (l *Log) Take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.b.Reset()
	return l.b.String()
}

// Count returns how many lines hold a text.
func (l *Log) Count(text string) (n int) {
	for line := range strings.Lines(l.String()) {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// Until polls a condition and ends the test if it is not true within a minute.
// The text says in the failure which condition that was.
func Until(t testing.TB, what string, ready func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for !ready() {
		if !Wait(ctx, pollEvery) {
			t.Fatalf("wait for %s: not within %v", what, patience)
		}
	}
}

// Wait returns true after d, and false as soon as ctx ends.
func Wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Must ends the test if there is an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

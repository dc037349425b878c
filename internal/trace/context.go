// Package trace follows events through OpenTelemetry: it reads and writes the trace context of
// the W3C, and sends spans to a collector over OTLP/HTTP. It knows neither events nor
// deliveries.
//
// A collector that is slow, refuses or hangs costs spans and nothing else: spans wait in a
// bounded queue, and those that find no room are dropped and counted.
package trace

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strings"
)

// ID is that of a trace.
type ID [16]byte

// SpanID is that of a span; zero for none.
type SpanID [8]byte

// Context says which trace and span something belongs to:
// https://www.w3.org/TR/trace-context/.
type Context struct {
	Trace ID
	Span  SpanID
	Flags byte
	State string // tracestate, passed on unchanged
}

// sampled is the flag of a trace that is recorded.
const sampled = 1

// Sampled reports whether spans of the trace are recorded.
func (c Context) Sampled() bool { return c.Flags&sampled != 0 }

// parentLength is that of version 00, which versions to come begin with.
const parentLength = 55

// maxState bounds a tracestate in bytes. The specification asks for 512 at least; a longer one is
// left out, which it allows.
const maxState = 512

// Kept is the text in which a context is kept with an event: the traceparent and, after a space,
// the tracestate if there is one. It is "" if parent is not valid, which the specification says to
// ignore.
func Kept(parent, state string) string {
	if _, ok := parse(parent); !ok {
		return ""
	}
	parent = parent[:parentLength]
	state = strings.TrimSpace(state)
	if state == "" || len(state) > maxState || strings.ContainsFunc(state, unprintable) {
		return parent
	}
	return parent + " " + state
}

func unprintable(r rune) bool { return r < ' ' || r > '~' }

// Parse reads the text of Kept. The zero Context stands for "", and for what is not valid.
func Parse(kept string) Context {
	parent, state, _ := strings.Cut(kept, " ")
	c, ok := parse(parent)
	if !ok {
		return Context{}
	}
	c.State = state
	return c
}

// parse reads a traceparent (section 3.2). One of a later version may have more after the flags.
func parse(s string) (c Context, ok bool) {
	if len(s) < parentLength || s[2] != '-' || s[35] != '-' || s[52] != '-' || s[:2] == "ff" {
		return c, false
	}
	if len(s) > parentLength && (s[:2] == "00" || s[parentLength] != '-') {
		return c, false
	}
	var version, flags [1]byte
	for _, part := range []struct {
		to   []byte
		text string
	}{{version[:], s[:2]}, {c.Trace[:], s[3:35]}, {c.Span[:], s[36:52]}, {flags[:], s[53:55]}} {
		if strings.ToLower(part.text) != part.text {
			return c, false
		}
		if _, err := hex.Decode(part.to, []byte(part.text)); err != nil {
			return c, false
		}
	}
	c.Flags = flags[0]
	return c, c.Trace != ID{} && c.Span != SpanID{}
}

// Parent is the traceparent, in version 00.
func (c Context) Parent() string {
	b := make([]byte, 0, parentLength)
	b = append(hex.AppendEncode(append(b, "00-"...), c.Trace[:]), '-')
	b = append(hex.AppendEncode(b, c.Span[:]), '-')
	return string(hex.AppendEncode(b, []byte{c.Flags}))
}

// Keep is Kept of c.
func (c Context) Keep() string {
	if c.State == "" {
		return c.Parent()
	}
	return c.Parent() + " " + c.State
}

// begin is a context of a new trace.
func begin(flags byte) (c Context) {
	for c.Trace == (ID{}) {
		binary.BigEndian.PutUint64(c.Trace[:8], rand.Uint64())
		binary.BigEndian.PutUint64(c.Trace[8:], rand.Uint64())
	}
	c.Flags = flags
	return c
}

// below is the context of a new span in the trace of c.
func (c Context) below() Context {
	c.Span = SpanID{}
	for c.Span == (SpanID{}) {
		binary.BigEndian.PutUint64(c.Span[:], rand.Uint64())
	}
	return c
}

// Attempt is the context of the nth attempt of a delivery, below c. It is the same each time, so
// that the request and the span need not know of each other.
func (c Context) Attempt(delivery string, n int) Context {
	h := sha256.New()
	h.Write([]byte(delivery))
	var number [8]byte
	binary.BigEndian.PutUint64(number[:], uint64(n))
	h.Write(number[:])
	h.Write(c.Span[:])
	copy(c.Span[:], h.Sum(nil))
	return c
}

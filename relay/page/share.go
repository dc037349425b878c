package page

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	sharedFor = 2 * time.Second // an answer is for viewers who ask within this time
	maxShared = 256             // answers at a time
)

// sharing keeps answers that viewers with the same access, language and address share, so that many who watch the same
// screen cost as much as one.
type sharing struct {
	mu      sync.Mutex
	answers map[string]*sharedAnswer
	known   map[string]string // signatures of what needs a person, by access
}

const needsKey = "needs " // begins keys of signatures

// needs notes the signature of an access. Another one than before ends the screens of that access, as they may be older than what it
// tells of, also those that are being made. So does the first one that is known, also after too many others.
func (s *sharing) needs(access, signature string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known[access] == signature {
		return
	}
	if s.known == nil || len(s.known) >= maxShared {
		s.known = map[string]string{}
	}
	s.known[access] = signature
	maps.DeleteFunc(s.answers, func(key string, a *sharedAnswer) bool { return a.access == access && !strings.HasPrefix(key, needsKey) })
}

// sharedAnswer is one of them. Its other fields are there when done is closed.
type sharedAnswer struct {
	access string
	done   chan struct{}
	until  time.Time // zero while it is made

	answer *recorder
	mark   string // stands for marks of forms
	err    error
}

// take returns the answer of a key, for an access, and whether it is new: then the caller makes it.
func (s *sharing) take(key, access string, now time.Time) (a *sharedAnswer, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a = s.answers[key]; a != nil && (a.until.IsZero() || now.Before(a.until)) {
		return a, false
	}
	maps.DeleteFunc(s.answers, func(_ string, a *sharedAnswer) bool { return !a.until.IsZero() && !now.Before(a.until) })
	a = &sharedAnswer{access: access, done: make(chan struct{})}
	if s.answers == nil {
		s.answers = map[string]*sharedAnswer{}
	}
	if len(s.answers) < maxShared {
		s.answers[key] = a
	}
	return a, true
}

// made ends the making of an answer. One that failed is not kept.
func (s *sharing) made(key string, a *sharedAnswer, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.until = now.Add(sharedFor); a.err != nil && s.answers[key] == a {
		delete(s.answers, key)
	}
	close(a.done)
}

// shared answers with what show shows, which several viewers get. It must only depend on the access, the language and
// the address.
func (c *call) shared(show func(*call) error) error {
	access := c.accessKey()
	key := fmt.Sprintf("%s %v %v %v %s", c.lang, c.session, c.part(), access, c.r.URL.RequestURI())
	a, fresh := c.p.sharing.take(key, access, c.p.Now())
	if fresh {
		c.make(key, a, show)
	}
	select {
	case <-a.done:
	case <-c.r.Context().Done():
		return nil // the viewer has gone
	}
	if a.err != nil {
		return a.err
	}
	maps.Copy(c.w.Header(), a.answer.header)
	c.w.WriteHeader(a.answer.status)
	if c.r.Method != http.MethodHead {
		_, _ = c.w.Write(bytes.ReplaceAll(a.answer.body.Bytes(), []byte(a.mark), []byte(newMark()))) // the client has gone
	}
	return nil
}

// make makes an answer for all who wait for it, even if the one who asked first goes away.
func (c *call) make(key string, a *sharedAnswer, show func(*call) error) {
	one := *c
	one.r = c.r.Clone(context.WithoutCancel(c.r.Context()))
	one.r.Method = http.MethodGet
	a.answer, a.mark = &recorder{header: http.Header{}}, newMark()
	one.w, one.mark = a.answer, a.mark
	a.err = fmt.Errorf("the screen was not made") // by a panic
	defer func() { c.p.sharing.made(key, a, c.p.Now()) }()
	a.err = show(&one)
}

// accessKey tells accesses apart that see or may do different things.
func (c *call) accessKey() string {
	if c.access == nil {
		return "whole"
	}
	return fmt.Sprintf("%+v", *c.access)
}

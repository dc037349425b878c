// Package sink plays a receiver: it takes webhooks, verifies their signatures, reports them and
// answers by a script. The verbs sink and demo use it. It does not trust senders: bodies,
// headers, time and memory are bounded, and its output cannot control a terminal.
package sink

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"relay/policy/sign"
)

// Options of a Sink. The zero value answers 200 to everything and checks no
// signature.
type Options struct {
	Script  Script            // for every path without its own
	Scripts map[string]Script // by URL path

	// PerEvent starts the script again for each event id, so that "503x3,200" fails every event
	// three times. Without it the script runs once, over all requests in the order of arrival.
	// Requests of one path without an id share a script.
	PerEvent bool

	Verifiers []*sign.Verifier // all must pass; none = not checked
	Endpoint  string           // the endpoint's name, for schemes that sign it
	Tolerance time.Duration    // how far a signature's time may be off; 0 = 5 minutes
	MaxBody   int64            // bytes; 0 = 1 MiB
	Remember  int              // how many event ids are known at a time, the latest ones; 0 = 65,536

	// Observe is called for every POST, before it is answered, by many
	// goroutines at once. It may keep what it is given and must not change it.
	Observe func(Received)
}

// Signature is the result of checking a request's signatures.
type Signature string

// The results.
const (
	Unchecked Signature = "unchecked" // no Verifiers, or an incomplete body
	Good      Signature = "ok"
	Bad       Signature = "bad"
)

// Received is one POST. Unless Signature is Good, all fields but Time are unverified.
type Received struct {
	Time       time.Time
	Path       string
	EventID    string // header webhook-id, else the body's "id"
	EventType  string // the body's "type"
	DeliveryID string // header Relay-Delivery
	Attempt    int    // header Relay-Attempt, 0 if missing or invalid
	Header     http.Header
	Body       []byte // the part that was read, if it was too large or broke off
	Signature  Signature
	Err        error // why the script was not used: bad signature, body too large or broken off
	Duplicate  bool  // the event id was answered with 2xx at this path before
	Answer     Answer
}

// Totals since New.
type Totals struct {
	Received   int64 // POSTs; the sum of Answers
	Verified   int64 // signatures checked and good
	Bad        int64 // signatures checked and bad
	Duplicates int64
	Events     int64            // distinct event ids, per path; one that was forgotten (Options.Remember) counts again
	Answers    map[string]int64 // by Answer.Kind
}

// Sink is an http.Handler that plays a receiver.
type Sink struct {
	o    Options
	seed maphash.Seed

	mu     sync.Mutex
	runs   map[string]int64 // requests so far by key of Scripts, "" for Script
	events *simplelru.LRU[uint64, *event]
	totals Totals
}

// event is the state of one event id at one path.
type event struct {
	requests int64
	accepted bool // answered 2xx
}

// New makes a Sink.
func New(o Options) *Sink {
	o.Tolerance = cmp.Or(o.Tolerance, 5*time.Minute)
	o.MaxBody = cmp.Or(o.MaxBody, 1<<20)
	o.Remember = max(cmp.Or(o.Remember, 1<<16), 1)
	events, _ := simplelru.NewLRU[uint64, *event](o.Remember, nil) // its only error is a size below 1
	return &Sink{
		o:      o,
		seed:   maphash.MakeSeed(),
		runs:   map[string]int64{},
		events: events,
		totals: Totals{Answers: map[string]int64{}},
	}
}

const about = "This is relay sink, a webhook receiver for testing.\nPOST an event to any path: it is printed, its signature is checked and a script says the answer.\n"

// ServeHTTP answers a POST by the script. A bad signature (401), a body that is too large (413)
// and one that breaks off (400) use no step of it. A GET is answered with a description.
func (s *Sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPost:
		got := s.receive(w, r)
		s.decide(&got)
		if s.o.Observe != nil {
			s.o.Observe(got)
		}
		s.answer(w, r, &got)
	case http.MethodGet, http.MethodHead:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		io.WriteString(w, about)
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		http.Error(w, "send a POST", http.StatusMethodNotAllowed)
	}
}

// receive reads and verifies a request; Answer is set if the script is not used.
func (s *Sink) receive(w http.ResponseWriter, r *http.Request) Received {
	got := Received{
		Time:       time.Now(),
		Path:       r.URL.Path,
		DeliveryID: r.Header.Get("Relay-Delivery"),
		Header:     r.Header,
		Signature:  Unchecked,
	}
	if n, err := strconv.Atoi(r.Header.Get("Relay-Attempt")); err == nil && n > 0 {
		got.Attempt = n
	}
	got.Body, got.Err = io.ReadAll(http.MaxBytesReader(w, r.Body, s.o.MaxBody))

	// Fields that the body lacks stay empty.
	var body struct{ ID, Type string }
	_ = json.Unmarshal(got.Body, &body)
	got.EventID = cmp.Or(r.Header.Get("webhook-id"), body.ID)
	got.EventType = body.Type

	if _, tooLarge := errors.AsType[*http.MaxBytesError](got.Err); tooLarge {
		got.Err = fmt.Errorf("body is larger than %d bytes", s.o.MaxBody)
		got.Answer.Status = http.StatusRequestEntityTooLarge
	} else if got.Err != nil {
		got.Err = fmt.Errorf("read body: %w", got.Err)
		got.Answer.Status = http.StatusBadRequest
	} else if got.Err = s.verify(r, &got); got.Err != nil {
		got.Signature = Bad
		got.Answer.Status = http.StatusUnauthorized
	} else if len(s.o.Verifiers) > 0 {
		got.Signature = Good
	}
	return got
}

func (s *Sink) verify(r *http.Request, got *Received) error {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	m := &sign.Message{
		EventID:    got.EventID,
		EventType:  got.EventType,
		DeliveryID: got.DeliveryID,
		Endpoint:   s.o.Endpoint,
		Method:     r.Method,
		URL:        scheme + "://" + r.Host + r.RequestURI,
		Attempt:    got.Attempt,
		Time:       got.Time,
		Body:       got.Body,
	}
	for _, v := range s.o.Verifiers {
		if err := v.Verify(r.Header.Values, m, s.o.Tolerance); err != nil {
			return err
		}
	}
	return nil
}

// key finds an event again. Ids are hashed, so that memory is bounded whatever their length; the
// seed is secret, so senders cannot make collisions.
func (s *Sink) key(got *Received) uint64 {
	return maphash.Comparable(s.seed, [2]string{got.Path, got.EventID})
}

// decide counts the request and takes its answer from the script.
func (s *Sink) decide(got *Received) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if got.Err == nil {
		s.script(got)
	}
	s.totals.Received++
	s.totals.Answers[got.Answer.Kind()]++
	switch got.Signature {
	case Good:
		s.totals.Verified++
	case Bad:
		s.totals.Bad++
	}
}

// script is used under the lock.
func (s *Sink) script(got *Received) {
	key := s.key(got)
	e, known := s.events.Get(key)
	if !known {
		e = &event{}
		s.events.Add(key, e)
	}
	if got.EventID != "" {
		if !known {
			s.totals.Events++
		}
		if e.accepted {
			got.Duplicate = true
			s.totals.Duplicates++
		}
	}
	run, script := "", s.o.Script
	if own, ok := s.o.Scripts[got.Path]; ok {
		run, script = got.Path, own
	}
	n := s.runs[run]
	if s.o.PerEvent {
		n = e.requests
	}
	s.runs[run]++
	e.requests++
	got.Answer = script.answer(n)
}

// answer carries out got.Answer. A panic with ErrAbortHandler makes net/http close the connection
// without an answer.
func (s *Sink) answer(w http.ResponseWriter, r *http.Request, got *Received) {
	control := http.NewResponseController(w)
	a := got.Answer
	if a.Delay > 0 {
		select {
		case <-time.After(a.Delay):
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	switch a.Ending {
	case Reset:
		reset(control)
		return
	case Hang:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case Close:
		panic(http.ErrAbortHandler)
	}
	if a.Status < 300 {
		s.accepted(got)
	}
	text := "answered by script"
	if got.Err != nil {
		text = got.Err.Error()
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if a.RetryAfter != "" {
		w.Header().Set("Retry-After", a.RetryAfter)
	}
	_ = control.SetWriteDeadline(time.Now().Add(writeTimeout))
	w.WriteHeader(a.Status)
	fmt.Fprintf(w, "%d: %s\n", a.Status, text)
}

// accepted records that an event is answered with 2xx, so that later ones are duplicates. It is
// not called if the client left during the delay.
func (s *Sink) accepted(got *Received) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.events.Peek(s.key(got)); ok {
		e.accepted = true
	}
}

// Totals returns a copy of the counts so far.
func (s *Sink) Totals() Totals {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.totals
	t.Answers = maps.Clone(t.Answers)
	return t
}

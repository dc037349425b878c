package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"relay/ingest/problem"
	"relay/outbox"
	"relay/relay/query"
)

func (a *api) tailRoutes() []route {
	return []route{{
		id: "tail", method: "GET", path: "/v1/tail", verb: "relay tail", summary: "Follow attempts of this Relay as they end, as server-sent events",
		about: "Event `attempt` is an attempt that ended. Event `lost` says how many were left out because the reader was too slow. Event `endpoint` says that the state of an endpoint has changed, where the filter leaves at most 10. Event `end` is the last one: Relay stops. " +
			"Without it the stream ends when the token is removed or changed by a reload, or the link is over. A comment comes every 15 s. Earlier attempts are not sent: find them at /v1/deliveries.",
		filter: query.Tail, media: "text/event-stream", answer: AttemptEnded{}, example: tailExample,
		codes: filterCodes(problem.Overloaded), handle: a.tail,
	}}
}

const tailExample = `event: attempt
data: {"outcome":"retry","id":"dlv_1","event":{"id":"evt_1","type":"invoice.paid","time":"2026-01-31T12:00:00Z"},"endpoint":"billing","state":"pending","code":"http_503","error":"the receiver answered 503","attempts":1,"max_attempts":10,"created":"2026-01-31T12:00:00Z","next_attempt":"2026-01-31T12:00:05Z","last":{"n":1,"started":"2026-01-31T12:00:00Z","took_ms":3.5,"status":503,"code":"http_503"}}

event: lost
data: {"lost":12}

event: endpoint
data: {"endpoint":"billing","state":"paused"}

`

// AttemptEnded is an attempt that ended, with its delivery as it is then.
type AttemptEnded struct {
	Outcome string `json:"outcome"` // of the attempt: delivered, retry, refused or gone
	Delivery
}

const (
	maxTails   = 64               // at a time, by Crowd
	tailRoom   = 1024             // attempts that wait for a reader; further ones are lost
	heartbeat  = 15 * time.Second // between comments, so that nobody on the way takes the connection for dead
	tailWrite  = time.Minute      // for a reader that takes nothing
	tailCheck  = time.Second      // between looks at whether the reader may still read, and at states of endpoints
	maxOrigins = 50               // looks in a second at deliveries that others repeat, for a bound reader; further attempts do not tell which one theirs does
	originWait = time.Second / 10 // for one of them; one that takes longer, or fails, is the last of the second
	maxStates  = 10               // endpoints of which changes of the state are reported to a reader
)

// tail is one reader.
type tail struct {
	a    *api
	w    http.ResponseWriter
	rc   *http.ResponseController
	room chan *outbox.Item
	lost atomic.Int64
	told int64 // of lost

	scope    *scope
	watching *scoped          // of which the states are
	states   map[string]state // of the endpoints of the filter, as the reader knows them; empty if there are too many

	origins int // looks at deliveries that others repeat, that are left in this second

	checked time.Time // when the reader last was known to be allowed to read

	rate   int64 // attempts in a second, 0 for all
	second atomic.Int64
	taken  atomic.Int64 // in that second

	mu      sync.Mutex
	stopped bool // the last deadline of writes is set
}

func (a *api) tail(w http.ResponseWriter, r *http.Request) {
	q, err := a.parseWhole(r, query.Tail)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	s, err := a.newScope(r.Context(), q)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	leave, ok := a.tails.Enter(AccessOf(r.Context()))
	if !ok {
		a.refuse(w, r, refusal(problem.Overloaded, "", "as many read already as may at a time: end one of them"))
		return
	}
	defer leave()
	t := &tail{a: a, w: w, rc: http.NewResponseController(w), room: make(chan *outbox.Item, tailRoom), rate: int64(q.Rate), scope: s, states: map[string]state{}}
	if err := t.follows(s.current()); err != nil {
		return // nothing to tell yet, so none
	}
	defer a.Deliverer.Listen(t.hear)()
	t.follow(r.Context())
}

// hear takes an attempt that just ended; it never waits.
func (t *tail) hear(i *outbox.Item) {
	if !t.scope.current().filter.Match(i) {
		return
	}
	if t.rate > 0 && !t.within(i.Last.Started.Add(i.Last.Took).Unix()) {
		return
	}
	select {
	case t.room <- i:
	default:
		t.lost.Add(1)
	}
}

// within tells whether the rate lets one more attempt of a second through. It is asked for each attempt of each reader, so it
// counts once, and looks at no clock: attempts that end out of order count for the newest second.
func (t *tail) within(second int64) bool {
	if now := t.second.Load(); second > now && t.second.CompareAndSwap(now, second) {
		t.lost.Add(max(0, t.taken.Swap(0)-t.rate))
	}
	return t.taken.Add(1) <= t.rate
}

// left is how many attempts were left out so far.
func (t *tail) left() int64 {
	n := t.lost.Load()
	if t.rate > 0 {
		n += max(0, t.taken.Load()-t.rate)
	}
	return n
}

// follow writes until the reader has gone, or Relay stops.
func (t *tail) follow(ctx context.Context) {
	t.w.Header().Set("Content-Type", "text/event-stream")
	t.w.Header().Set("Cache-Control", "no-store")
	t.w.Header().Set("X-Accel-Buffering", "no") // a proxy must not wait for the end
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go t.awaitStop(ctx)
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	check := time.NewTicker(tailCheck)
	defer check.Stop()
	t.checked, t.origins = time.Now(), maxOrigins
	err := t.comment()
	for err == nil {
		select {
		case i := <-t.room:
			if err = t.check(ctx); err == nil {
				err = t.attempts(ctx, i)
			}
		case <-check.C:
			t.origins = maxOrigins
			if err = t.check(ctx); err == nil {
				err = t.follows(t.scope.current())
			}
			if err == nil {
				err = t.changes()
			}
		case <-beat.C:
			if err = t.loss(); err == nil {
				err = t.comment()
			}
		case <-t.a.Stopping:
			_ = t.event("end", struct{}{}) // and if it fails, nobody reads
			return
		case <-ctx.Done():
			return
		}
	}
}

// errAccessOver ends a stream whose reader may read no more.
var errAccessOver = errors.New("the access is over")

// check fails once the reader may read no more.
func (t *tail) check(ctx context.Context) error {
	t.checked = time.Now()
	if !holds(ctx) {
		return errAccessOver
	}
	return nil
}

// state is what of an endpoint's status a reader is told changes of.
type state struct {
	state, code, breaker string
	paused, failing      bool
}

// EndpointState is that the state of an endpoint has changed.
type EndpointState struct {
	Endpoint string `json:"endpoint"`
	State    string `json:"state"` // as in GET /v1/endpoints/{name}; read it for the whole
}

// stateOf asks the deliverer, which knows what other Relays of a fleet changed, and not the outbox.
func (t *tail) stateOf(name string) state {
	s, known := t.a.Deliverer.StatusOf(name)
	if !known {
		return state{state: removed}
	}
	return state{string(s.State), s.Code, s.Breaker, s.PausedToo, s.Failing != nil}
}

// changes writes which endpoints have another state than the reader knows.
func (t *tail) changes() error {
	for name, before := range t.states {
		now := t.stateOf(name)
		if now == before {
			continue
		}
		t.states[name] = now
		if err := t.event("endpoint", EndpointState{name, now.state}); err != nil {
			return err
		}
	}
	return nil
}

// awaitStop bounds the writes once Relay stops: a reader that takes nothing holds up no stop.
func (t *tail) awaitStop(ctx context.Context) {
	select {
	case <-t.a.Stopping:
		t.mu.Lock()
		defer t.mu.Unlock()
		t.stopped = true
		_ = t.rc.SetWriteDeadline(time.Now().Add(time.Second))
	case <-ctx.Done():
	}
}

// attempts writes one attempt and all that wait behind it, then flushes.
func (t *tail) attempts(ctx context.Context, i *outbox.Item) error {
	l := t.a.lookout(ctx)
	l.looks, l.wait = t.origins, originWait
	defer func() {
		if t.origins = l.looks; l.err != nil { // with the origin left out, the attempt is still worth to be told
			t.origins = 0
		}
	}()
	for n := 0; ; n++ {
		if time.Since(t.checked) >= tailCheck { // writes may have waited for the reader
			if err := t.check(ctx); err != nil {
				return err
			}
		}
		if err := t.loss(); err != nil {
			return err
		}
		if t.scope.current().filter.Match(i) { // it may have left while the attempt waited for the reader
			if err := t.write("attempt", AttemptEnded{Outcome: i.Last.Outcome, Delivery: l.delivery(i)}); err != nil {
				return err
			}
		}
		if n == tailRoom {
			return t.flush()
		}
		select {
		case i = <-t.room:
		default:
			return t.flush()
		}
	}
}

// loss says how many attempts were lost since the last time.
func (t *tail) loss() error {
	lost := t.left()
	n := lost - t.told
	if n <= 0 { // a second may just end
		return nil
	}
	t.told = lost
	return t.event("lost", Lost{n})
}

// Lost is how many attempts a slow reader did not get, since it was told before.
type Lost struct {
	Lost int64 `json:"lost"`
}

func (t *tail) comment() error {
	t.extend()
	if _, err := t.w.Write([]byte(": relay\n\n")); err != nil {
		return err
	}
	return t.flush()
}

func (t *tail) event(name string, data any) error {
	if err := t.write(name, data); err != nil {
		return err
	}
	return t.flush()
}

func (t *tail) write(name string, data any) error {
	text, err := json.Marshal(shownTo(t.w, data))
	if err != nil {
		return err
	}
	t.extend()
	_, err = fmt.Fprintf(t.w, "event: %s\ndata: %s\n\n", name, text)
	return err
}

func (t *tail) flush() error {
	t.extend()
	return t.rc.Flush()
}

// extend gives the reader time for what comes next, unless Relay stops.
func (t *tail) extend() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.stopped {
		_ = t.rc.SetWriteDeadline(time.Now().Add(tailWrite)) // a writer without deadlines needs none
	}
}

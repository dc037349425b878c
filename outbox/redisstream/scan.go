package redisstream

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"relay/outbox"
)

// scan looks through the history of a shard for deliveries that match a query, in their order. It takes
// candidates from an index, a batch at a time, and reads these to know more: an index may tell of too many, never of
// too few.
type scan struct {
	sh    *shard
	q     *outbox.Query
	terms outbox.Filter // what the log and segments can tell
	after position      // only what comes behind it

	low, high int64       // orders that were not looked at yet
	source    source      // of candidates
	batch     []candidate // that were not read yet
	covered   int64       // the order up to which batch goes

	found   []match
	reached position // all up to here was read
	done    bool     // and there is no more
	err     error

	read int // events
}

// candidate is an event, or some deliveries of it.
type candidate struct {
	order     int64
	low, high int  // numbers of deliveries; low is below 0 for so many before high
	made      bool // an operator made the delivery
	id        string
	in        *opened // the segment in which the id is, nil if it is known
	at        int     // place in it
}

// source gives candidates.
type source interface {
	// next returns the candidates of some orders, from low to high, in the order of the query, up
	// to which order it looked, and whether that is all.
	next(ctx context.Context, low, high int64) (list []candidate, covered int64, done bool, err error)
}

const (
	scanReads = 5000                  // events that are read for one page at most, besides those of an offset
	scanTime  = 40 * time.Millisecond // after which no more are read
	scanLeast = 32                    // events that are read at once
)

func newScan(sh *shard, q *outbox.Query, c cursor) *scan {
	sc := &scan{sh: sh, q: q, after: c.at, low: 0, high: farthest, reached: c.at}
	sc.terms = outbox.Filter{Endpoints: q.Endpoints, Except: q.Except, Types: q.Types, TypeLike: q.TypeLike,
		Tenants: q.Tenants, Key: q.Key, Fields: q.Fields, Manual: q.Manual}
	if !q.Accepted.Since.IsZero() {
		sc.low = max(0, q.Accepted.Since.UnixMicro())
	}
	if !q.Accepted.Until.IsZero() {
		sc.high = q.Accepted.Until.UnixMicro()
	}
	if c.at == (position{}) && !q.Oldest {
		sc.reached = position{order: farthest} // nothing is up to there
	}
	if c.at != (position{}) && q.Oldest {
		sc.low = max(sc.low, c.at.order)
	} else if c.at != (position{}) {
		sc.high = min(sc.high, c.at.order)
	}
	sc.source = sc.choose()
	return sc
}

// choose picks the index that tells of the fewest.
func (sc *scan) choose() source {
	states := sc.q.States
	if len(states) == 0 || slices.Contains(states, outbox.Delivered) {
		return newRanges(sc, nil)
	}
	lists := &lists{sc: sc}
	if len(sc.q.Types)+len(sc.q.Tenants)+len(sc.q.Fields) == 0 && sc.q.TypeLike == nil && sc.q.Key == "" {
		return lists
	}
	return newRanges(sc, lists)
}

// run looks until it has found so many, has done enough work, or there is no more.
func (sc *scan) run(ctx context.Context, most int) {
	if sc.q.Event != "" {
		if sc.err = sc.ofEvent(ctx); sc.err == nil {
			sc.done = true
		}
		return
	}
	began, reads, from := time.Now(), sc.read, sc.reached
	for len(sc.found) < most && !sc.over() {
		if len(sc.batch) == 0 {
			if sc.err = sc.more(ctx); sc.err != nil {
				return
			}
		} else if sc.err = sc.readSome(ctx, min(max(most, scanLeast), peekGroup)); sc.err != nil {
			return
		}
		if sc.reached != from && (sc.read-reads > scanReads+most || time.Since(began) > scanTime && sc.read-reads > most) {
			break
		}
		if time.Since(began) > 10*scanTime && sc.reached != from {
			break
		}
	}
	// Also where the time ends with the last candidate: a cursor at order 0 would begin once more.
	sc.done = sc.over()
}

// over reports whether there is nothing more to look at.
func (sc *scan) over() bool { return len(sc.batch) == 0 && sc.low > sc.high }

// more takes the next batch of candidates.
func (sc *scan) more(ctx context.Context) error {
	list, covered, done, err := sc.source.next(ctx, sc.low, sc.high)
	if err != nil {
		return err
	}
	if done {
		covered = sc.low
		if sc.q.Oldest {
			covered = sc.high
		}
	}
	sc.batch, sc.covered = list, covered
	if len(list) == 0 {
		sc.pass(covered)
	}
	return nil
}

// pass notes that all up to an order was read.
func (sc *scan) pass(order int64) {
	if sc.q.Oldest {
		sc.low = order + 1
		sc.reached = position{order, sc.sh.index, maxFanOut * 2}
	} else {
		sc.high = order - 1
		sc.reached = position{order, sc.sh.index, 0}
	}
}

// errMoved: a segment was replaced while it was read.
var errMoved = errors.New("a segment was replaced")

// readSome reads the next candidates.
func (sc *scan) readSome(ctx context.Context, n int) error {
	some := sc.batch[:min(n, len(sc.batch))]
	if err := sc.sh.identify(ctx, some); err != nil {
		if errors.Is(err, errMoved) {
			sc.batch = nil // once more, from where this one was reached
			sc.found = slices.DeleteFunc(sc.found, func(m match) bool { return m.compare(sc.reached, sc.q.Oldest) > 0 })
			return nil
		}
		return err
	}
	var keys []string
	var args []any
	for _, c := range some {
		flag := ""
		if c.made {
			flag = "m"
		}
		keys, args = append(keys, sc.sh.event(c.id)), append(args, c.order, c.low, c.high, flag)
	}
	list, err := sc.sh.peek(ctx, keys, args)
	if err != nil {
		return err
	}
	sc.read += len(some)
	for i, p := range list {
		if p == nil {
			continue
		}
		rest, err := sc.takeEvent(some[i], p)
		if err != nil {
			return err
		}
		if rest != nil { // the event has more deliveries than are read at once
			sc.batch = append([]candidate{*rest}, sc.batch[i+1:]...)
			return nil
		}
	}
	sc.batch = sc.batch[len(some):]
	last := some[len(some)-1].order
	if len(sc.batch) == 0 {
		last = sc.covered
	} else if sc.batch[0].order == last {
		return nil // some deliveries of an event
	}
	sc.pass(last)
	return nil
}

// windowSize is how many deliveries of an event are read at once.
const windowSize = 64

// takeEvent takes the deliveries that were read of an event. It returns a candidate for those that come next.
func (sc *scan) takeEvent(c candidate, p *peeked) (rest *candidate, err error) {
	e, endpoints, err := decodeHead(c.id, p.head)
	if err != nil {
		return nil, err
	}
	n := p.high
	list := make([]match, 0, len(p.records))
	for _, text := range p.records {
		m := named{ref: ref{order: c.order, n: n, total: len(endpoints), event: c.id}}
		n--
		if made, ok := madeBy(p.made, m.ref); ok && (c.made || c.low == m.ref.n) {
			m = made
		} else if m.ref.n < len(endpoints) {
			m.endpoint = endpoints[m.ref.n]
		} else {
			continue
		}
		item, ok, err := m.item(text)
		if err != nil {
			return nil, err
		}
		if newest, made := p.resent[m.endpoint]; ok {
			item.Resent = made && newest > m.ref.n
			list = append(list, match{position{c.order, sc.sh.index, m.ref.n}, item})
		}
	}
	if sc.q.Oldest {
		slices.Reverse(list)
	}
	for _, m := range list {
		sc.take(m.order, m.n, m.item, e, !p.erased.IsZero())
	}
	next := c
	switch {
	case c.made || c.low == c.high:
		return nil, nil
	case sc.q.Oldest && p.high < p.total-1:
		next.low, next.high = p.high+1, p.high+windowSize
	case !sc.q.Oldest && n >= 0:
		next.low, next.high = max(0, n-windowSize+1), n
	default:
		return nil, nil
	}
	return &next, nil
}

// item is a delivery in a page, with the record that was read; ok is false if it was removed.
func (m *named) item(text string) (item outbox.Item, ok bool, err error) {
	switch text {
	case "":
		return outbox.Item{Delivery: m.delivery(nil)}, true, nil
	case gone:
		return outbox.Item{}, false, nil
	}
	r, err := m.record(text)
	if err != nil {
		return outbox.Item{}, false, err
	}
	item = outbox.Item{Delivery: m.delivery(&r), Error: r.last.Error}
	if r.attempts > 0 {
		item.Last = &r.last
	}
	return item, true, nil
}

// identify reads the ids of candidates.
func (sh *shard) identify(ctx context.Context, list []candidate) error {
	type page struct {
		in *opened
		k  int
	}
	var missing []page
	for _, c := range list {
		if c.in == nil {
			continue
		}
		k := c.at / segmentPage
		if _, ok := c.in.pages[k]; !ok {
			c.in.pages[k] = nil
			missing = append(missing, page{c.in, k})
		}
	}
	if len(missing) > 0 {
		node, err := sh.node(ctx)
		if err != nil {
			return sh.note(err)
		}
		p := node.Pipeline()
		cmds := make([]*redis.SliceCmd, len(missing))
		for i, m := range missing {
			cmds[i] = p.HMGet(ctx, sh.segment(m.in.name), "i"+strconv.Itoa(m.k))
		}
		if _, err := p.Exec(ctx); err != nil {
			return sh.note(err)
		}
		for i, m := range missing {
			text, ok := cmds[i].Val()[0].(string)
			if !ok {
				return errMoved
			}
			if m.in.pages[m.k], err = readIDs(text); err != nil {
				return err
			}
		}
	}
	for i := range list {
		c := &list[i]
		if c.in == nil {
			continue
		}
		page := c.in.pages[c.at/segmentPage]
		if c.at%segmentPage >= len(page) {
			return errSegment
		}
		k := page[c.at%segmentPage]
		c.id, c.in = k.id, nil
		if k.only >= 0 {
			c.low, c.high, c.made = k.only, k.only, true
		}
	}
	return nil
}

package redisstream

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// keys are the names of one shard's keys. All have the same hash tag, so a script
// may touch any of them, in a Cluster too.
//
//	e:<event id>   hash    the event (e), its order (o), a record for each delivery that was settled (<n>, earlier ones <n>.<k>),
//	                       how many deliveries are gone (g), how many were made where marks left some out (m)
//	i:<event id>   string  what retention leaves of an id that the app chose, until the window ends
//	k:<key>        string  a request with an idempotency key, for the window
//	m:<key>        string  level of a mark, 19 digits, for as long as it is remembered
//	q:<endpoint>   stream  backlog: an entry for each delivery that may be made; claims are its pending entries
//	x:<endpoint>   stream  express lane, the same way, while there is one
//	r:<endpoint>   zset    deliveries that wait for a retry, by due time
//	c:<endpoint>   zset    deliveries that came back (retry, release), by time of accept
//	l:<endpoint>   string  token bucket that is not full: "<level> <time> <units a µs> <units a token>"; only in shard 0
//	endpoints      hash    <endpoint>|lease longest lease of its claims, in ms; |lane until when the express lane is open;
//	                       |rung there while it has work that was rung for
//	notes          hash    notes on endpoints: "<revision>|<text>"; only in shard 0
//	leases         zset    endpoints with claims, by when the first lease may end
//	agenda         zset    endpoints, by the next due time of a retry
//	bell           stream  endpoints that got work (e), revisions of notes (n), the last few thousand
//	done, failed   stream  finished deliveries in the order of their end, for retention
//	counts         hash    <endpoint>|a accepted, |d delivered, |f failed, |x discarded
//	meta           hash    outbox id, format, last order number, bytes in use, number of the last Relay, revision of the notes
//	alive          zset    Relays by their last heartbeat; a Relay's name is that of its consumer
//	who            hash    a random token of each Relay
//	about          hash    what each Relay says of itself
type keys struct {
	prefix                     string
	meta, leases, agenda, bell string
	done, failed, counts       string
	alive, who, about, notes   string
	endpoints                  string
	log, segments              string
	took, periods, erased      string
	kinds, journal             string
}

func newKeys(namespace string, shard int) keys {
	p := fmt.Sprintf("{%s:%d}:", namespace, shard)
	return keys{
		prefix: p,
		meta:   p + "meta", leases: p + "leases", agenda: p + "agenda", bell: p + "bell",
		done: p + "done", failed: p + "failed", counts: p + "counts",
		alive: p + "alive", who: p + "who", about: p + "about", notes: p + "notes",
		endpoints: p + "endpoints",
		log:       p + "log", segments: p + "segments",
		took: p + "took", periods: p + "periods", erased: p + "erased",
		kinds: p + "kinds", journal: p + "journal",
	}
}

// group is the consumer group that every stream of deliveries has. Scripts know it, too.
const group = "relay"

func (k *keys) event(id string) string         { return k.prefix + "e:" + id }
func (k *keys) tombstone(id string) string     { return k.prefix + "i:" + id }
func (k *keys) request(key string) string      { return k.prefix + "k:" + key }
func (k *keys) backlog(endpoint string) string { return k.prefix + "q:" + endpoint }
func (k *keys) lane(endpoint string) string    { return k.prefix + "x:" + endpoint }
func (k *keys) retries(endpoint string) string { return k.prefix + "r:" + endpoint }
func (k *keys) created(endpoint string) string { return k.prefix + "c:" + endpoint }
func (k *keys) bucket(endpoint string) string  { return k.prefix + "l:" + endpoint }

func (k *keys) failures(endpoint string) string { return k.prefix + "f:" + endpoint }
func (k *keys) discards(endpoint string) string { return k.prefix + "d:" + endpoint }
func (k *keys) segment(name string) string      { return k.prefix + "s:" + name }
func (k *keys) documents(kind string) string    { return k.prefix + "doc:" + kind }
func (k *keys) revisions(kind string) string    { return k.prefix + "rev:" + kind }
func (k *keys) removed(kind string) string      { return k.prefix + "gone:" + kind }

// period is the key of the statistics of an hour or day.
func (k *keys) period(p period) string {
	if p.step == day {
		return k.prefix + "day:" + strconv.FormatInt(p.start, 10)
	}
	return k.prefix + "hour:" + strconv.FormatInt(p.start, 10)
}

func (k *keys) hour(start int64) string { return k.period(period{start, time.Hour}) }

// ref names a delivery within its shard. Its text, the tail, stands in sets and
// streams: "<order>.<n>.<total>|<event id>".
type ref struct {
	order int64 // of the event or, if an operator made it later, its own: microseconds of the server's clock at the accept, raised where needed to be unique and rising
	n     int   // of the delivery among the event's
	total int   // deliveries of the event at its accept; an operator may make more
	event string
}

func (r ref) tail() string {
	return strconv.FormatInt(r.order, 10) + "." + strconv.Itoa(r.n) + "." + strconv.Itoa(r.total) + "|" + r.event
}

// deliveryID is unique beyond the life of one outbox, since time goes on.
func (r ref) deliveryID() string {
	return "dlv_" + strconv.FormatInt(r.order, 36) + "_" + strconv.Itoa(r.n) + "_" + r.event
}

// repeats tells whether an operator made the delivery of an event that was accepted before.
func (r ref) repeats() bool { return r.n >= r.total }

func (r ref) created() time.Time { return time.UnixMicro(r.order).UTC() }

var errTail = errors.New("reference to a delivery is malformed")

func parseTail(tail string) (r ref, err error) {
	numbers, event, ok := strings.Cut(tail, "|")
	part := strings.Split(numbers, ".")
	if !ok || len(part) != 3 {
		return ref{}, errTail
	}
	r.event = event
	var errs [3]error
	r.order, errs[0] = strconv.ParseInt(part[0], 10, 64)
	r.n, errs[1] = strconv.Atoi(part[1])
	r.total, errs[2] = strconv.Atoi(part[2])
	if errors.Join(errs[:]...) != nil {
		return ref{}, errTail
	}
	return r, nil
}

// entry is a delivery's place in a stream: what a claim is a pending entry of. Its id is the
// order of the event and the number of the delivery, or a later order and 0 where the delivery
// has come back to the line.
type entry struct {
	line  byte // 'q' backlog, 'x' express lane
	order int64
	n     int64
}

// parseEntry reads an id. Nobody gives one that cannot be read.
func parseEntry(line byte, id string) entry {
	order, n, _ := strings.Cut(id, "-")
	e := entry{line: line}
	e.order, _ = strconv.ParseInt(order, 10, 64)
	e.n, _ = strconv.ParseInt(n, 10, 64)
	return e
}

// before tells whether the id is lower.
func (e entry) before(o entry) bool { return e.order < o.order || e.order == o.order && e.n < o.n }

func (e entry) id() string {
	b := strconv.AppendInt(make([]byte, 0, 24), e.order, 10)
	return string(strconv.AppendInt(append(b, '-'), e.n, 10))
}

// stream is the key of the entry's stream.
func (k *keys) stream(e entry, endpoint string) string {
	return k.prefix + string(e.line) + ":" + endpoint
}

// A fence is the order of the claimed entry, the shard, and how often the entry was claimed, so
// that no two claims of a delivery share one, and Redis can say whether a claim holds, also to
// a process that did not make it.
const (
	timesBits = 6
	shardBits = 6 // 64 shards at most
)

func newFence(e entry, shard int, times uint64) uint64 {
	return uint64(e.order)<<(shardBits+timesBits) | uint64(shard)<<timesBits | times&(1<<timesBits-1)
}

func shardOf(fence uint64) int { return int(fence >> timesBits & (1<<shardBits - 1)) }

// orderOf is the order of the entry that a claim is of.
func orderOf(fence uint64) int64 { return int64(fence >> (shardBits + timesBits)) }

// timesOf is how often the entry was claimed, as far as a fence tells.
func timesOf(fence uint64) uint64 { return fence & (1<<timesBits - 1) }

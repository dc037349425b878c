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
//	q:<endpoint>   stream  backlog: deliveries that nobody has claimed yet, in order of accept
//	r:<endpoint>   zset    deliveries that wait again (retry, release, lost lease), by due time
//	c:<endpoint>   zset    the same and their claims, by time of accept
//	b:<endpoint>   zset    claims that count for a bound of the fleet; those without a lease are over
//	l:<endpoint>   string  token bucket that is not full: "<level> <time> <units a µs> <units a token>"; only in shard 0
//	notes          hash    notes on endpoints: "<revision>|<text>"; only in shard 0
//	lease          zset    claims, by the end of their lease
//	agenda         zset    endpoints, by the next due time of a retry
//	bell           stream  endpoints that got work (e), revisions of notes (n), the last few thousand
//	done, failed   stream  finished deliveries in the order of their end, for retention
//	counts         hash    <endpoint>|a accepted, |d delivered, |f failed, |x discarded
//	meta           hash    outbox id, format, last order number, bytes in use, number of the last Relay, revision of the notes
//	alive          zset    Relays by their last heartbeat
//	who            hash    a random token of each Relay, by its number
//	about          hash    what each Relay says of itself
type keys struct {
	prefix                    string
	meta, lease, agenda, bell string
	done, failed, counts      string
	alive, who, about, notes  string
}

func newKeys(namespace string, shard int) keys {
	p := fmt.Sprintf("{%s:%d}:", namespace, shard)
	return keys{
		prefix: p,
		meta:   p + "meta", lease: p + "lease", agenda: p + "agenda", bell: p + "bell",
		done: p + "done", failed: p + "failed", counts: p + "counts",
		alive: p + "alive", who: p + "who", about: p + "about", notes: p + "notes",
	}
}

func (k *keys) event(id string) string         { return k.prefix + "e:" + id }
func (k *keys) tombstone(id string) string     { return k.prefix + "i:" + id }
func (k *keys) request(key string) string      { return k.prefix + "k:" + key }
func (k *keys) backlog(endpoint string) string { return k.prefix + "q:" + endpoint }
func (k *keys) retries(endpoint string) string { return k.prefix + "r:" + endpoint }
func (k *keys) created(endpoint string) string { return k.prefix + "c:" + endpoint }
func (k *keys) bounded(endpoint string) string { return k.prefix + "b:" + endpoint }
func (k *keys) bucket(endpoint string) string  { return k.prefix + "l:" + endpoint }

// ref names a delivery within its shard. Its text, the tail, stands in sets and
// streams: "<order>.<n>.<total>|<event id>".
type ref struct {
	order int64 // of the event: microseconds of the server's clock at the accept, raised where needed to be unique and rising
	n     int   // of the delivery among the event's
	total int   // deliveries of the event
	event string
}

func (r ref) tail() string {
	return strconv.FormatInt(r.order, 10) + "." + strconv.Itoa(r.n) + "." + strconv.Itoa(r.total) + "|" + r.event
}

// deliveryID is unique beyond the life of one outbox, since time goes on.
func (r ref) deliveryID() string {
	return "dlv_" + strconv.FormatInt(r.order, 36) + "_" + strconv.Itoa(r.n) + "_" + r.event
}

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

// A fence is the number of the Relay, the shard and a counter, so that no two
// claims ever share one. In Redis it is text: "<relay>-<shard>-<counter>".
const (
	counterBits = 38
	shardBits   = 6 // 64 shards at most
)

// fences gives out fences in one shard. The zero value is of no Relay.
type fences struct {
	relay  int64
	prefix string // of the text
	high   uint64
}

func newFences(relay int64, shard int) fences {
	return fences{
		relay:  relay,
		prefix: fmt.Sprintf("%d-%d-", relay, shard),
		high:   (uint64(relay)<<shardBits | uint64(shard)) << counterBits,
	}
}

func (f fences) fence(counter uint64) uint64 { return f.high | counter&(1<<counterBits-1) }

// relayOf is the number of the Relay that made a claim.
func relayOf(fence uint64) int64 { return int64(fence >> (counterBits + shardBits)) }

func shardOf(fence uint64) int { return int(fence >> counterBits & (1<<shardBits - 1)) }

// member is a claim in the set of leases: "<fence>|<n>|<total>|<endpoint>|<event id>".
func member(fence uint64, r ref, endpoint string) string {
	b := make([]byte, 0, 40+len(endpoint)+len(r.event))
	b = strconv.AppendInt(b, relayOf(fence), 10)
	b = strconv.AppendInt(append(b, '-'), int64(shardOf(fence)), 10)
	b = strconv.AppendUint(append(b, '-'), fence&(1<<counterBits-1), 10)
	b = strconv.AppendInt(append(b, '|'), int64(r.n), 10)
	b = strconv.AppendInt(append(b, '|'), int64(r.total), 10)
	b = append(append(b, '|'), endpoint...)
	return string(append(append(b, '|'), r.event...))
}

package redisstream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"relay/outbox"
	"relay/outbox/sketch"
)

// Settlements leave a row each in the stream took, in the call that settles: which endpoint, type and tenant it
// was, how it ended, how long it took. A Relay adds many of these rows at a time to the hash of
// their hour, so statistics cost settlements one command for a group.

// statKey is what a row of statistics is about, within its hour or day.
type statKey struct{ endpoint, eventType, tenant string }

func (k statKey) field() string { return k.endpoint + "\x00" + k.eventType + "\x00" + k.tenant }

func parseStatKey(field string) statKey {
	part := strings.SplitN(field, "\x00", 3)
	if len(part) < 3 {
		return statKey{endpoint: field}
	}
	return statKey{part[0], part[1], part[2]}
}

// ends are the kinds of rows. All but the last two have an attempt.
const (
	endNone byte = iota // a release
	endFirst
	endDelivered
	endFailed
	endDiscarded
	endRetry
	endDiscardedUntried
	endFailedUntried
)

// rowSize is the size of a row: number of its key 2 bytes, kind 1, nanoseconds 6.
const rowSize = 9

func appendRow(b []byte, key int, kind byte, took time.Duration) []byte {
	b = append(binary.BigEndian.AppendUint16(b, uint16(key)), kind)
	n := uint64(min(max(took, 0), 1<<48-1))
	return append(b, byte(n>>40), byte(n>>32), byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

// statRows are two arguments of the settle script: the keys of the settlements, and a row for each.
func statRows(simple, others []*settlement) []any {
	rows := make([]byte, 0, rowSize*(len(simple)+len(others)))
	var keys []byte
	numbers, counted := map[statKey]int{}, false
	add := func(m *settlement) {
		kind := m.kind()
		if kind == endNone {
			rows = appendRow(rows, 0, endNone, 0)
			return
		}
		counted = true
		key := statKey{endpoint: m.lease.claim.Endpoint}
		if e := m.lease.claim.Event; e != nil {
			key.eventType, key.tenant = e.Type, e.Tenant
		}
		n, ok := numbers[key]
		if !ok {
			n = len(numbers)
			numbers[key] = n
			keys = key.append(keys)
		}
		rows = appendRow(rows, n, kind, m.record.last.Took)
	}
	for _, m := range simple {
		add(m)
	}
	for _, m := range others {
		add(m)
	}
	if !counted {
		rows = nil
	}
	return []any{keys, rows}
}

func (k statKey) append(b []byte) []byte {
	return appendString(appendString(appendString(b, k.endpoint), k.eventType), k.tenant)
}

// kind is how a settlement counts.
func (m *settlement) kind() byte {
	if m.release {
		return endNone
	}
	switch m.record.state {
	case outbox.Delivered:
		if m.record.attempts == 1 {
			return endFirst
		}
		return endDelivered
	case outbox.Failed:
		return endFailed
	case outbox.Discarded:
		return endDiscarded
	}
	return endRetry
}

// count adds a row.
func count(s *outbox.Stat, kind byte, took time.Duration) {
	switch kind {
	case endFirst:
		s.Delivered++
		s.FirstTry++
	case endDelivered:
		s.Delivered++
	case endFailed, endFailedUntried:
		s.Failed++
	case endDiscarded, endDiscardedUntried:
		s.Discarded++
	}
	if kind != endNone && kind < endDiscardedUntried {
		s.Attempts++
		s.Took.Add(took)
	}
}

// hours are rows by the begin of their hour, in seconds.
type hours map[int64]map[statKey]*outbox.Stat

func (h hours) row(start int64, key statKey) *outbox.Stat {
	if h[start] == nil {
		h[start] = map[statKey]*outbox.Stat{}
	}
	if h[start][key] == nil {
		h[start][key] = &outbox.Stat{}
	}
	return h[start][key]
}

// hourOf is the hour of an entry of the stream took, in seconds.
func hourOf(id string) int64 {
	ms, _, _ := strings.Cut(id, "-")
	at, _ := strconv.ParseInt(ms, 10, 64)
	return at / 1000 / 3600 * 3600
}

// add takes in an entry of the stream took.
func (h hours) add(m redis.XMessage) {
	start := hourOf(m.ID)
	rows, settled := m.Values["r"].(string)
	if !settled { // deliveries that are failed from the start, with the terms of their events
		for name, v := range m.Values {
			terms, _ := v.(string)
			var e outbox.Event
			d := decoder{rest: terms}
			d.terms(&e)
			if _, endpoint, ok := strings.Cut(name, "|"); ok && d.err == nil {
				count(h.row(start, statKey{endpoint, e.Type, e.Tenant}), endFailedUntried, 0)
			}
		}
		return
	}
	text, _ := m.Values["d"].(string)
	var keys []statKey
	for d := (decoder{rest: text}); d.rest != "" && d.err == nil; {
		keys = append(keys, statKey{d.string(), d.string(), d.string()})
	}
	for ; len(rows) >= rowSize; rows = rows[rowSize:] {
		b := []byte(rows[:rowSize])
		n, kind := int(binary.BigEndian.Uint16(b)), b[2]
		if kind != endNone && n < len(keys) {
			count(h.row(start, keys[n]), kind, time.Duration(binary.BigEndian.Uint64(append([]byte{0, 0}, b[3:]...))))
		}
	}
}

func appendStat(b []byte, s *outbox.Stat) []byte {
	for _, n := range []int64{s.Delivered, s.Failed, s.Discarded, s.FirstTry, s.Attempts} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return s.Took.Append(b)
}

func parseStat(text string) (s outbox.Stat, err error) {
	d := decoder{rest: text}
	for _, to := range []*int64{&s.Delivered, &s.Failed, &s.Discarded, &s.FirstTry, &s.Attempts} {
		*to = int64(d.uvarint())
	}
	s.Took, err = sketch.Parse([]byte(d.rest))
	return s, errors.Join(d.err, err)
}

const (
	rollEvery = 5 * time.Second
	rollGroup = 1000 // entries of one call
)

// roll adds what settlements left to the rows of their hours, a bounded number at a time, and tells whether there may
// be more. Where several do so at once one of them has an effect; it may have read before the newest came.
func (sh *shard) roll(ctx context.Context) (more bool, err error) {
	joined, err := sh.session()
	if err != nil {
		return false, err
	}
	node, err := sh.node(ctx)
	if err != nil {
		return false, sh.note(err)
	}
	entries, err := node.XRangeN(ctx, sh.took, "-", "+", rollGroup).Result()
	if err != nil {
		return false, sh.note(err)
	}
	if len(entries) == 0 {
		return false, nil
	}
	added := hours{}
	for _, m := range entries {
		added.add(m)
	}
	last := entries[len(entries)-1].ID
	keys, args := []string{sh.meta, sh.took, sh.periods}, []any{joined.outbox, entries[0].ID, behind(last), 0}
	grown := 0
	for start, rows := range added {
		values, n, err := sh.grow(ctx, node, start, rows)
		if err != nil {
			return false, err
		}
		keys = append(keys, sh.hour(start))
		args = append(append(args, start, len(values)), values...)
		grown += n
	}
	args[3] = grown
	v, err := sh.eval(ctx, &sh.s.scripts.roll, keys, args)
	if err != nil {
		return false, err
	}
	return len(entries) == rollGroup || v != int64(1), nil
}

// behind is the id of a stream that is next to another one.
func behind(id string) string {
	ms, seq, _ := strings.Cut(id, "-")
	n, _ := strconv.ParseUint(seq, 10, 64)
	return ms + "-" + strconv.FormatUint(n+1, 10)
}

// grow returns fields and values of an hour with rows added, and by how many bytes these are more than before.
func (sh *shard) grow(ctx context.Context, node *redis.Client, start int64, rows map[statKey]*outbox.Stat) (values []any, grown int, err error) {
	kept, err := node.HLen(ctx, sh.hour(start)).Result()
	if err != nil {
		return nil, 0, sh.note(err)
	}
	before, err := sh.statValues(ctx, node, start, rows)
	if err != nil {
		return nil, 0, err
	}
	rest := map[statKey]*outbox.Stat{}
	for key, row := range rows {
		if _, known := before[key]; !known {
			if kept >= sh.statKeys() && (key.eventType != "" || key.tenant != "") {
				other := statKey{endpoint: key.endpoint}
				if rest[other] == nil {
					rest[other] = &outbox.Stat{}
				}
				rest[other].Add(row)
				delete(rows, key)
				continue
			}
			kept++
		}
	}
	if len(rest) > 0 {
		more, err := sh.statValues(ctx, node, start, rest)
		if err != nil {
			return nil, 0, err
		}
		for key, row := range rest {
			if rows[key] == nil {
				rows[key] = &outbox.Stat{}
			}
			rows[key].Add(row)
			if text, ok := more[key]; ok {
				before[key] = text
			}
		}
	}
	for key, row := range rows {
		text, known := before[key]
		if known {
			s, err := parseStat(text)
			if err != nil {
				return nil, 0, fmt.Errorf("%w: statistics of endpoint %s cannot be read", outbox.ErrCorrupt, key.endpoint)
			}
			row.Add(&s)
		} else {
			grown += len(key.field()) + statCost
		}
		b := appendStat(nil, row)
		grown += len(b) - len(text)
		values = append(values, key.field(), b)
	}
	return values, grown, nil
}

// statCost is about what Redis needs for a row besides its texts, in bytes.
const statCost = 64

// statKeys is how many rows an hour of the shard has at most.
func (sh *shard) statKeys() int64 { return int64(max(1, outbox.MaxStatKeys/len(sh.s.shards))) }

func (sh *shard) statValues(ctx context.Context, node *redis.Client, start int64, rows map[statKey]*outbox.Stat) (map[statKey]string, error) {
	keys := make([]statKey, 0, len(rows))
	for key := range rows {
		keys = append(keys, key)
	}
	found := make(map[statKey]string, len(rows))
	for some := range slices.Chunk(keys, 1000) {
		fields := make([]string, len(some))
		for i, key := range some {
			fields[i] = key.field()
		}
		values, err := node.HMGet(ctx, sh.hour(start), fields...).Result()
		if err != nil {
			return nil, sh.note(err)
		}
		for i, v := range values {
			if text, ok := v.(string); ok {
				found[some[i]] = text
			}
		}
	}
	return found, nil
}

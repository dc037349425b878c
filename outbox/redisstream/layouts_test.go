package redisstream_test

import (
	"context"
	"errors"
	"strings"

	"github.com/redis/go-redis/v9"
)

// The layouts that layout_test.go compares, and their scripts.

// layoutFloor keeps payload and record, and no queue.
type layoutFloor struct{ layoutBase }

// left has nothing to count.
func (l layoutFloor) left(context.Context) (int64, error) { return 0, nil }

func (l layoutFloor) accept(ctx context.Context, g benchGroup) ([]benchClaim, error) {
	var keys []string
	var args []any
	var claims []benchClaim
	for _, e := range g.events {
		keys = append(keys, keyEvent+e.id)
		args = append(args, l.payload)
		for _, name := range e.endpoints {
			claims = append(claims, benchClaim{e.id, name, ""})
		}
	}
	return claims, l.run(ctx, acceptFloor, len(g.events), keys, args)
}

func (l layoutFloor) settle(ctx context.Context, claims []benchClaim) error {
	var args []any
	for _, c := range claims {
		args = append(args, c.endpoint, l.record)
	}
	return l.run(ctx, settleFloor, len(claims), eventKeys(claims), args)
}

// layoutA is a stream per endpoint.
type layoutA struct {
	layoutBase
	direct bool
}

func (l layoutA) prepare(ctx context.Context) error {
	_, err := l.c.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, name := range l.names {
			p.XGroupCreateMkStream(ctx, keyQueue+name, "relay", "0")
		}
		return nil
	})
	return err
}

func (l layoutA) left(ctx context.Context) (left int64, err error) {
	for _, name := range l.names {
		waiting, err := l.c.XLen(ctx, keyQueue+name).Result()
		if err != nil {
			return 0, err
		}
		pending, err := l.c.XPending(ctx, keyQueue+name, "relay").Result()
		if err != nil {
			return 0, err
		}
		left += waiting + pending.Count
	}
	return left, nil
}

func (l layoutA) accept(ctx context.Context, g benchGroup) ([]benchClaim, error) {
	keys, slot := g.queueKeys()
	args := []any{len(g.events), 0}
	if l.direct {
		args[1] = g.each
	}
	for _, e := range g.events {
		args = append(args, e.id, l.payload, len(e.endpoints))
		for _, name := range e.endpoints {
			args = append(args, slot[name])
		}
	}
	reply, err := acceptA.Run(ctx, l.c, keys, args...).Slice()
	if err != nil || !l.direct {
		return nil, err
	}
	var claims []benchClaim
	for _, s := range reply {
		s := s.([]any)
		for _, e := range s[1].([]any) {
			e := e.([]any)
			claims = append(claims, benchClaim{e[1].([]any)[1].(string), strings.TrimPrefix(s[0].(string), keyQueue), e[0].(string)})
		}
	}
	return claims, nil
}

func (l layoutA) claim(ctx context.Context, g benchGroup) ([]benchClaim, error) {
	read := redis.XReadGroupArgs{Group: "relay", Consumer: benchConsumer, Count: int64(g.each), Block: -1}
	for _, name := range g.endpoints {
		read.Streams = append(read.Streams, keyQueue+name)
	}
	for range g.endpoints {
		read.Streams = append(read.Streams, ">")
	}
	found, err := l.c.XReadGroup(ctx, &read).Result()
	var claims []benchClaim
	for _, s := range found {
		for _, e := range s.Messages {
			claims = append(claims, benchClaim{e.Values["e"].(string), strings.TrimPrefix(s.Stream, keyQueue), e.ID})
		}
	}
	return claims, err
}

func (l layoutA) settle(ctx context.Context, claims []benchClaim) error {
	keys, slot := eventKeys(claims), map[string]int{}
	args := []any{len(claims), benchConsumer}
	for _, c := range claims {
		if slot[c.endpoint] == 0 {
			keys = append(keys, keyQueue+c.endpoint)
			slot[c.endpoint] = len(keys)
		}
		args = append(args, slot[c.endpoint], c.token, c.endpoint, l.record)
	}
	return l.run(ctx, settleA, len(claims), keys, args)
}

// layoutB is one stream with a group per endpoint.
type layoutB struct{ layoutBase }

func (l layoutB) prepare(ctx context.Context) error {
	_, err := l.c.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, name := range l.names {
			p.XGroupCreateMkStream(ctx, keyStream, name, "0")
		}
		return nil
	})
	return err
}

func (l layoutB) left(ctx context.Context) (int64, error) {
	left, err := l.c.XLen(ctx, keyStream).Result()
	if err != nil {
		return 0, err
	}
	all, err := l.c.XInfoGroups(ctx, keyStream).Result()
	for _, g := range all {
		left += g.Pending
	}
	return left, err
}

func (l layoutB) accept(ctx context.Context, g benchGroup) ([]benchClaim, error) {
	var keys []string
	var args []any
	for _, e := range g.events {
		keys = append(keys, keyEvent+e.id)
		args = append(args, e.id, l.payload, len(e.endpoints), strings.Join(e.endpoints, " "))
	}
	return nil, l.run(ctx, acceptB, len(g.events), append(keys, keyStream), args)
}

// claim reads as many events as it accepted in every group, since any group
// may want them, and acknowledges at once what a group does not want.
func (l layoutB) claim(ctx context.Context, g benchGroup) (claims []benchClaim, err error) {
	reads := make([]*redis.XStreamSliceCmd, 0, len(l.names))
	_, _ = l.c.Pipelined(ctx, func(p redis.Pipeliner) error { // each read has its own error
		for _, name := range l.names {
			reads = append(reads, p.XReadGroup(ctx, &redis.XReadGroupArgs{
				Group: name, Consumer: benchConsumer, Streams: []string{keyStream, ">"}, Count: int64(len(g.events)), Block: -1}))
		}
		return nil
	})
	acks := l.c.Pipeline()
	for i, name := range l.names {
		found, err := reads[i].Result()
		if err != nil && !errors.Is(err, redis.Nil) { // nil: what was left is settled already
			return nil, err
		}
		var unwanted []string
		for _, s := range found {
			for _, e := range s.Messages {
				if strings.Contains(e.Values["to"].(string), name) {
					claims = append(claims, benchClaim{e.Values["e"].(string), name, e.ID})
				} else {
					unwanted = append(unwanted, e.ID)
				}
			}
		}
		if len(unwanted) > 0 {
			acks.XAck(ctx, keyStream, name, unwanted...)
		}
	}
	_, err = acks.Exec(ctx)
	return claims, err
}

func (l layoutB) settle(ctx context.Context, claims []benchClaim) error {
	args := []any{benchConsumer}
	for _, c := range claims {
		args = append(args, c.token, c.endpoint, l.record)
	}
	return l.run(ctx, settleB, len(claims), append(eventKeys(claims), keyStream), args)
}

// layoutC has a free worker.
type layoutC struct{ layoutBase }

func (l layoutC) left(ctx context.Context) (int64, error) { return l.c.ZCard(ctx, keyLeases).Result() }

func (l layoutC) accept(ctx context.Context, g benchGroup) (claims []benchClaim, err error) {
	var keys []string
	args := []any{benchLease.Milliseconds()}
	for _, e := range g.events {
		keys = append(keys, keyEvent+e.id)
		args = append(args, l.payload, len(e.endpoints))
		for _, name := range e.endpoints {
			c := benchClaim{e.id, name, e.id + "|" + name + "|1"}
			claims = append(claims, c)
			args = append(args, c.token)
		}
	}
	return claims, l.run(ctx, acceptC, len(claims), append(keys, keyLeases), args)
}

func (l layoutC) settle(ctx context.Context, claims []benchClaim) error {
	args := make([]any, 0, 3*len(claims))
	for _, c := range claims {
		args = append(args, c.token)
	}
	for _, c := range claims {
		args = append(args, c.endpoint, l.record)
	}
	return l.run(ctx, settleC, len(claims), append(eventKeys(claims), keyLeases), args)
}

// layoutCBacklog is C with nobody free. It accepts like A and settles like C.
type layoutCBacklog struct{ layoutC }

func (l layoutCBacklog) left(ctx context.Context) (int64, error) {
	var queues []string
	for _, name := range l.names {
		queues = append(queues, keyQueue+name)
	}
	waiting, err := l.c.Exists(ctx, queues...).Result() // an empty stream is deleted
	leased, other := l.layoutC.left(ctx)
	return waiting + leased, errors.Join(err, other)
}

func (l layoutCBacklog) accept(ctx context.Context, g benchGroup) ([]benchClaim, error) {
	return layoutA{l.layoutBase, false}.accept(ctx, g)
}

func (l layoutCBacklog) claim(ctx context.Context, g benchGroup) (claims []benchClaim, err error) {
	var keys []string
	args := []any{benchLease.Milliseconds(), g.each, "1"}
	for _, name := range g.endpoints {
		keys = append(keys, keyQueue+name)
		args = append(args, "|"+name+"|")
	}
	tokens, err := claimCBacklog.Run(ctx, l.c, append(keys, keyLeases), args...).StringSlice()
	for _, token := range tokens {
		event, rest, _ := strings.Cut(token, "|")
		endpoint, _, _ := strings.Cut(rest, "|")
		claims = append(claims, benchClaim{event, endpoint, token})
	}
	return claims, err
}

// The scripts. KEYS begin with the hashes of the events, or for a settle with the
// hash of each delivery's event; what follows is said at each. All but acceptA
// and claimCBacklog return how many events or deliveries they took.
var (
	// ARGV: a payload per event.
	acceptFloor = redis.NewScript(`
		for i, key in ipairs(KEYS) do redis.call('HSET', key, 'data', ARGV[i]) end
		return #KEYS`)

	// ARGV per delivery: endpoint, record.
	settleFloor = redis.NewScript(`
		for i, key in ipairs(KEYS) do redis.call('HSET', key, ARGV[2*i-1], ARGV[2*i]) end
		return #KEYS`)

	// KEYS: and the streams of the endpoints. ARGV: events, how many entries to
	// read back from each stream (0: none); per event its id, payload, number
	// of endpoints and the place of each one's stream in KEYS.
	// Returns what XREADGROUP read.
	acceptA = redis.NewScript(`
		local n, at = tonumber(ARGV[1]), 3
		for i = 1, n do
			redis.call('HSET', KEYS[i], 'data', ARGV[at+1])
			local last = at + 2 + ARGV[at+2]
			for d = at + 3, last do
				redis.call('XADD', KEYS[tonumber(ARGV[d])], '*', 'e', ARGV[at])
			end
			at = last + 1
		end
		if ARGV[2] == '0' then return {} end
		local read = {unpack(KEYS, n + 1)}
		for i = 1, #KEYS - n do read[#read+1] = '>' end
		return redis.call('XREADGROUP', 'GROUP', 'relay', '` + benchConsumer + `', 'COUNT', ARGV[2], 'STREAMS', unpack(read))`)

	// KEYS: and the streams. ARGV: deliveries, consumer; per delivery the place
	// of its stream, the entry's id, endpoint, record.
	// Only the consumer that was given the entry once, and last, may settle it.
	settleA = redis.NewScript(`
		local n, done, ended = tonumber(ARGV[1]), 0, {}
		for i = 1, n do
			local at = 4*i - 1
			local queue, id = tonumber(ARGV[at]), ARGV[at+1]
			local p = redis.call('XPENDING', KEYS[queue], 'relay', id, id, 1)[1]
			if p and p[2] == ARGV[2] and p[4] == 1 then
				redis.call('HSET', KEYS[i], ARGV[at+2], ARGV[at+3])
				local ids = ended[queue] or {}
				ids[#ids+1] = id
				ended[queue] = ids
				done = done + 1
			end
		end
		for queue, ids in pairs(ended) do
			redis.call('XACK', KEYS[queue], 'relay', unpack(ids))
			redis.call('XDEL', KEYS[queue], unpack(ids))
		end
		return done`)

	// KEYS: and the stream. ARGV per event: id, payload, number of endpoints,
	// their names.
	acceptB = redis.NewScript(`
		local n = #KEYS - 1
		for i = 1, n do
			local at = 4*i - 3
			redis.call('HSET', KEYS[i], 'data', ARGV[at+1], 'open', ARGV[at+2])
			redis.call('XADD', KEYS[n+1], '*', 'e', ARGV[at], 'to', ARGV[at+3])
		end
		return n`)

	// KEYS: and the stream. ARGV: consumer; per delivery the entry's id,
	// endpoint (which is its group), record. The last one deletes the entry.
	settleB = redis.NewScript(`
		local n, done, ended, over = #KEYS - 1, 0, {}, {}
		local stream = KEYS[n+1]
		for i = 1, n do
			local at = 3*i - 1
			local id, group = ARGV[at], ARGV[at+1]
			local p = redis.call('XPENDING', stream, group, id, id, 1)[1]
			if p and p[2] == ARGV[1] and p[4] == 1 then
				redis.call('HSET', KEYS[i], group, ARGV[at+2])
				local ids = ended[group] or {}
				ids[#ids+1] = id
				ended[group] = ids
				if redis.call('HINCRBY', KEYS[i], 'open', -1) == 0 then over[#over+1] = id end
				done = done + 1
			end
		end
		for group, ids in pairs(ended) do redis.call('XACK', stream, group, unpack(ids)) end
		if #over > 0 then redis.call('XDEL', stream, unpack(over)) end
		return done`)

	// KEYS: and the leases. ARGV: lease in ms; per event its payload, number of
	// deliveries and the member of each.
	acceptC = redis.NewScript(`
		local n, at, add, now = #KEYS - 1, 2, {}, redis.call('TIME')
		local till = string.format('%.0f', now[1] * 1000 + now[2] / 1000 + ARGV[1])
		for i = 1, n do
			redis.call('HSET', KEYS[i], 'data', ARGV[at])
			local last = at + 1 + ARGV[at+1]
			for d = at + 2, last do
				add[#add+1] = till
				add[#add+1] = ARGV[d]
			end
			at = last + 1
		end
		return redis.call('ZADD', KEYS[n+1], unpack(add))`)

	// KEYS: and the leases. ARGV: the members; then per delivery endpoint,
	// record. A member names the fence, so that it is there only for its owner.
	settleC = redis.NewScript(`
		local n = #KEYS - 1
		local mine = redis.call('ZMSCORE', KEYS[n+1], unpack(ARGV, 1, n))
		for i = 1, n do
			if mine[i] then redis.call('HSET', KEYS[i], ARGV[n+2*i-1], ARGV[n+2*i]) end
		end
		return redis.call('ZREM', KEYS[n+1], unpack(ARGV, 1, n))`)

	// KEYS: streams of endpoints, and the leases. ARGV: lease in ms, how many of
	// each stream, fence; the endpoint of each stream, between bars.
	// Returns the members.
	claimCBacklog = redis.NewScript(`
		local n, members, now = #KEYS - 1, {}, redis.call('TIME')
		local till = string.format('%.0f', now[1] * 1000 + now[2] / 1000 + ARGV[1])
		for i = 1, n do
			local ids, add = {}, {}
			for _, entry in ipairs(redis.call('XRANGE', KEYS[i], '-', '+', 'COUNT', ARGV[2])) do
				local member = entry[2][2] .. ARGV[3+i] .. ARGV[3]
				members[#members+1] = member
				ids[#ids+1] = entry[1]
				add[#add+1] = till
				add[#add+1] = member
			end
			if #ids > 0 then
				redis.call('ZADD', KEYS[n+1], unpack(add))
				if #ids == redis.call('XLEN', KEYS[i]) then
					redis.call('DEL', KEYS[i])
				else
					redis.call('XDEL', KEYS[i], unpack(ids))
				end
			end
		end
		return members`)
)

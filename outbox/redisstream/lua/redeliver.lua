-- Makes a new delivery of an event. Not allowed beyond maxmemory, as an accept.
-- KEYS: meta, counts, the event. ARGV: outbox id, key prefix, limit in bytes, event id, order and number of the delivery
-- that is repeated, how many deliveries the event had at its accept, id of that delivery, endpoint, what tells a
-- repeat of this call or '', terms of the event at that endpoint, bytes of a delivery.
-- Returns what became of it: D done, R done before, each with order and number of the delivery; N not found, S it is
-- not over, E the event was erased, F full.
local m = redis.call('HMGET', KEYS[1], 'id', 'bytes')
if m[1] ~= ARGV[1] then return redis.error_reply('EPOCH the outbox is another one than before') end
local prefix, limit, id, total, endpoint, once, size = ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[7]), ARGV[9], ARGV[10], tonumber(ARGV[12])
local key = KEYS[3]
if once ~= '' then
  local n = redis.call('HGET', key, 'w' .. once)
  local made = n and redis.call('HGET', key, 'r' .. n)
  if made then return {'R', string.match(made, '^%d+'), n} end
end
local record = delivery(key, ARGV[5], ARGV[6], total)
if record == nil then return {'N'} end
if not record or string.byte(record) == 112 then return {'S', 'p'} end
local kept = redis.call('HMGET', key, 'z', 'x')
if kept[1] then return {'E'} end
if limit > 0 and tonumber(m[2] or 0) + size > limit then return {'F'} end
local next, keep = orders(prefix, clock())
local o, n = text(next()), text(tonumber(kept[2] or total))
redis.call('HSET', key, 'x', text(n + 1), 'r' .. n, o .. '|' .. ARGV[8] .. '|' .. #once .. '|' .. once .. endpoint)
if once ~= '' then redis.call('HSET', key, 'w' .. once, n) end
local tail = o .. '.' .. n .. '.' .. text(total) .. '|' .. id
add(prefix .. 'q:' .. endpoint, o .. '-' .. n, tail)
redis.call('HINCRBY', KEYS[2], endpoint .. '|a', 1)
log(prefix, {'m' .. tail, ARGV[11]})
keep()
redis.call('HINCRBY', KEYS[1], 'bytes', size)
redis.call('HINCRBY', KEYS[1], 'logged', 1)
wake(prefix, endpoint)
return {'D', o, n}

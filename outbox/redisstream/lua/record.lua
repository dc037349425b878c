-- Keeps an event with one delivery that has ended, made by an operator. Not allowed beyond maxmemory, as an accept.
-- KEYS: meta, counts, the event, its tombstone. ARGV: outbox id, key prefix, limit in bytes, event id, event, endpoint, record,
-- letter of the state, bytes.
-- Returns D and the order of the delivery, C if the id was used before, F full.
local m = redis.call('HMGET', KEYS[1], 'id', 'bytes')
if m[1] ~= ARGV[1] then return redis.error_reply('EPOCH the outbox is another one than before') end
local prefix, limit, id, event, endpoint, state, size = ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6], ARGV[8], tonumber(ARGV[9])
local kept = held('HMGET', KEYS[3], 'e', 'o')
if not kept then return {'C'} end -- a key of another type
if kept[1] == event then return {'D', kept[2]} end -- this very call was executed before: its answer was lost
if kept[1] or redis.call('EXISTS', KEYS[4]) == 1 then return {'C'} end
if limit > 0 and tonumber(m[2] or 0) + size > limit then return {'F'} end
local next, keep = orders(prefix, clock())
local o = text(next())
local tail = o .. '.0.1|' .. id
local begin, rest = string.match(ARGV[7], '^(%a%d+,)%d+,%d+(,.*)$') -- it was made and ended now
redis.call('DEL', KEYS[3]) -- records are left where somebody deleted the event
redis.call('HSET', KEYS[3], 'e', event, 'o', o, '0', begin .. o .. ',' .. o .. rest, 'r0', o .. '||0|' .. endpoint)
redis.call('HINCRBY', KEYS[2], endpoint .. '|t', 1) -- that the lists of the endpoint have something
redis.call('XADD', prefix .. (state == 'f' and 'failed' or 'done'), '*', tail, '')
if state ~= 'd' then redis.call('ZADD', prefix .. (state == 'f' and 'f:' or 'd:') .. endpoint, o, tail) end
log(prefix, {'m' .. tail, terms_of(event)})
keep()
redis.call('HINCRBY', KEYS[1], 'bytes', size)
redis.call('HINCRBY', KEYS[1], 'logged', 1)
return {'D', o}

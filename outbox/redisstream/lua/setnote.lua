-- Writes a note on top of the revision that its writer knew.
-- KEYS: meta, notes, bell. ARGV: outbox id, endpoint, that revision, text.
-- Returns '1' and the new revision or, when another write came first, '0' and what it
-- wrote: revision, text.
local m = redis.call('HMGET', KEYS[1], 'id', 'notes')
if m[1] ~= ARGV[1] then return redis.error_reply('EPOCH the outbox is another one than before') end
look('XLEN', KEYS[3])
local kept = look('HGET', KEYS[2], ARGV[2])
local revision, before = '0', ''
if kept then revision, before = string.match(kept, '^(%d+)|(.*)$') end
if revision ~= ARGV[3] then return {'0', revision, before} end
-- By the clock, so that an outbox that lost notes gives no revision a second time.
revision = text(math.max(clock(), tonumber(m[2] or 0) + 1))
redis.call('HSET', KEYS[2], ARGV[2], revision .. '|' .. ARGV[4])
redis.call('HSET', KEYS[1], 'notes', revision)
redis.call('XADD', KEYS[3], 'MAXLEN', '~', 4096, '*', 'n', revision)
return {'1', revision}

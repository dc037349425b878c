-- Writes a document on top of the revision that its writer knew.
-- KEYS: meta, documents of the kind, their names by revision, those that were removed, kinds, bell. ARGV: outbox id, kind,
-- name, that revision, body ('' removes it).
-- Returns '1' and the new revision or, when another write came first, '0' and what it
-- wrote: revision, body.
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then return redis.error_reply('EPOCH the outbox is another one than before') end
look('XLEN', KEYS[6])
look('ZCARD', KEYS[3])
look('ZCARD', KEYS[4])
local name, body, now = ARGV[3], ARGV[5], clock()
local last, kept = look('HGET', KEYS[5], ARGV[2]), look('HGET', KEYS[2], name)
local revision, before = '0', ''
if kept then revision, before = string.match(kept, '^(%d+)|(.*)$') end
if before == '' then revision = '0' end
if revision ~= ARGV[4] then return {'0', revision, before} end
if before == '' and body == '' then return {'1', '0'} end
-- By the clock, so that an outbox that lost documents gives no revision a second time.
revision = text(math.max(now, tonumber(last or 0) + 1))
redis.call('HSET', KEYS[2], name, revision .. '|' .. body)
redis.call('ZADD', KEYS[3], revision, name)
if body == '' then
  redis.call('ZADD', KEYS[4], text(now), name)
else
  redis.call('ZREM', KEYS[4], name)
end
redis.call('HSET', KEYS[5], ARGV[2], revision)
redis.call('XADD', KEYS[6], 'MAXLEN', '~', 4096, '*', 'k', ARGV[2] .. '|' .. revision)
local old = redis.call('ZRANGE', KEYS[4], '-inf', text(now - 2 * 3600 * 1000000), 'BYSCORE', 'LIMIT', 0, 20)
if #old > 0 then
  redis.call('HDEL', KEYS[2], unpack(old))
  redis.call('ZREM', KEYS[3], unpack(old))
  redis.call('ZREM', KEYS[4], unpack(old))
end
return {'1', revision}

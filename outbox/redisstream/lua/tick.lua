-- The heartbeat of a Relay, which also takes back ended leases and rings for
-- retries that are due.
-- KEYS: meta, lease, agenda, bell, alive, who. ARGV: key prefix, outbox id, number of the Relay, its token.
-- Returns the time, the end of the first lease, the next due time, bytes in use,
-- the revision of the notes.
local lease, agenda, bell = KEYS[2], KEYS[3], KEYS[4]
local m = redis.call('HMGET', KEYS[1], 'id', 'bytes', 'notes')
if m[1] ~= ARGV[2] then return redis.error_reply('EPOCH the outbox is another one than before') end
-- A failover may have undone the join, and given the number to another Relay.
if redis.call('HGET', KEYS[6], ARGV[3]) ~= ARGV[4] then return redis.error_reply('EPOCH this Relay is not known') end
local now = clock()
redis.call('ZADD', KEYS[5], text(now), ARGV[3])
sweep(ARGV[1], lease, bell, now)
for _, endpoint in ipairs(redis.call('ZRANGE', agenda, '-inf', text(now), 'BYSCORE', 'LIMIT', 0, 200)) do
  ring(bell, endpoint)
  local later = redis.call('ZRANGE', ARGV[1] .. 'r:' .. endpoint, '(' .. text(now), '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
  if later[2] then
    redis.call('ZADD', agenda, text(tonumber(later[2])), endpoint)
  else
    redis.call('ZREM', agenda, endpoint)
  end
end
local function first(key)
  local f = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return f[2] and text(tonumber(f[2])) or ''
end
return {text(now), first(lease), first(agenda), m[2] or '0', m[3] or '0'}

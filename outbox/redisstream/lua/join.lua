-- Makes the shard's outbox when there is none, and gives this Relay a number.
-- KEYS: meta, bell, who. ARGV: a new outbox id, the format, a token of this Relay.
-- Returns the outbox id, the Relay's number, the last bell, the format, the time.
local known = redis.call('HMGET', KEYS[1], 'id', 'format')
if not known[1] then
  known = {ARGV[1], ARGV[2]}
  redis.call('HSET', KEYS[1], 'id', ARGV[1], 'format', ARGV[2], 'made', text(clock()))
end
if known[2] ~= ARGV[2] then return {known[1], '0', '0-0', known[2], text(clock())} end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
local number = tostring(redis.call('HINCRBY', KEYS[1], 'epoch', 1))
redis.call('HSET', KEYS[3], number, ARGV[3])
return {known[1], number, last[1] and last[1][1] or '0-0', known[2], text(clock())}

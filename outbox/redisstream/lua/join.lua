-- Makes the shard's outbox when there is none, and gives this Relay a number and the name
-- of a consumer: its machine's, with a number where others have that name.
-- KEYS: meta, bell, who, alive. ARGV: a new outbox id, the format, a token of this Relay, its
-- machine, after how many microseconds without a heartbeat a Relay is gone; then
-- names of Relays that are certainly dead, each with its entry in who.
-- Returns the outbox id, the Relay's number, the last bell, the format, the time, the consumer,
-- '1' if a Relay that is gone had that name.
local known = redis.call('HMGET', KEYS[1], 'id', 'format')
if not known[1] then
  known = {ARGV[1], ARGV[2]}
  redis.call('HSET', KEYS[1], 'id', ARGV[1], 'format', ARGV[2], 'made', text(clock()))
end
if known[2] ~= ARGV[2] then return {known[1], '0', '0-0', known[2], text(clock()), '', ''} end
local now, dead = clock(), {}
for a = 6, #ARGV, 2 do dead[ARGV[a]] = ARGV[a + 1] end
local function free(name)
  local holder = redis.call('HGET', KEYS[3], name)
  local beat = tonumber(redis.call('ZSCORE', KEYS[4], name) or 0)
  return not holder or holder == dead[name] or beat < now - tonumber(ARGV[5])
end
local name, n = ARGV[4], 1
while not free(name) do
  n = n + 1
  name = ARGV[4] .. '~' .. n
end
local before = redis.call('HGET', KEYS[3], name) and '1' or ''
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
local number = tostring(redis.call('HINCRBY', KEYS[1], 'epoch', 1))
redis.call('HSET', KEYS[3], name, ARGV[3])
redis.call('ZADD', KEYS[4], text(now), name)
return {known[1], number, last[1] and last[1][1] or '0-0', known[2], text(now), name, before}

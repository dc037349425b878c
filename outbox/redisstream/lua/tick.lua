-- The heartbeat of a Relay, which also lets due retries join their line and rings for leases
-- that have ended.
-- KEYS: meta, leases, agenda, alive, who, endpoints, kinds, took, erased. ARGV: key prefix, outbox id, consumer, its token.
-- Returns the time, the end of the first lease that goes on, the next due time (both are now where this call left
-- something), bytes in use, the revision of the notes, how many events are in the log, entries in took, and in erased;
-- then kinds of documents and the revision of each.
local prefix, leases, agenda = ARGV[1], KEYS[2], KEYS[3]
local m = redis.call('HMGET', KEYS[1], 'id', 'bytes', 'notes', 'logged', 'sealed')
if m[1] ~= ARGV[2] then return redis.error_reply('EPOCH the outbox is another one than before') end
-- A failover may have undone the join, or another Relay has taken the name over.
if redis.call('HGET', KEYS[5], ARGV[3]) ~= ARGV[4] then return redis.error_reply('EPOCH this Relay is not known') end
local now = clock()
redis.call('ZADD', KEYS[4], text(now), ARGV[3])
local function due(key) return redis.call('ZRANGE', key, '-inf', text(now), 'BYSCORE', 'LIMIT', 0, 200) end

-- About so many retries join their lines in one call at most, because all others wait for it.
local most, joined = 5000, 0
local some = due(agenda)
local retriesLeft, endsLeft = #some == 200, false
for _, endpoint in ipairs(some) do
  if joined >= most then
    retriesLeft = true
    break
  end
  local n = promote(prefix, endpoint, now)
  if n > 0 then wake(prefix, endpoint) end
  joined = joined + n
  local later = redis.call('ZRANGE', prefix .. 'r:' .. endpoint, 0, 0, 'WITHSCORES')
  if later[2] then
    retriesLeft = retriesLeft or tonumber(later[2]) <= now
    redis.call('ZADD', agenda, text(tonumber(later[2])), endpoint)
  else
    redis.call('ZREM', agenda, endpoint)
  end
end

some = due(leases)
for _, endpoint in ipairs(some) do
  local kept = redis.call('HMGET', KEYS[6], endpoint .. '|lease', endpoint .. '|rung')
  if kept[2] then
    redis.call('ZADD', leases, text(now), endpoint) -- nobody has looked since it was rung for; others have their turn
  else
    endsLeft = #some == 200
    local ended, first = ends(prefix, endpoint, tonumber(kept[1] or 0), now)
    if ended > 0 then
      wake(prefix, endpoint)
    elseif first then
      redis.call('ZADD', leases, text(first), endpoint)
    else
      redis.call('ZREM', leases, endpoint)
    end
  end
end

local function first(key, left)
  if left then return text(now) end
  local f = redis.call('ZRANGE', key, '(' .. text(now), '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
  return f[2] and text(tonumber(f[2])) or ''
end
local out = {text(now), first(leases, endsLeft), first(agenda, retriesLeft), m[2] or '0', m[3] or '0', text(tonumber(m[4] or 0) - tonumber(m[5] or 0)),
  redis.call('XLEN', KEYS[8]), redis.call('ZCARD', KEYS[9])}
for _, v in ipairs(redis.call('HGETALL', KEYS[7])) do out[#out + 1] = v end
return out

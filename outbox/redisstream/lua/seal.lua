-- Writes a segment of the history, and removes what it has from the log or the segment that it replaces.
-- KEYS: meta, log, segments, the segment; the segment that it replaces. ARGV: outbox id, how many events were in segments
-- before and are now (the same for a replacement), first order and member of the segment (a replacement may have
-- none), behind the last entry of the log, the member that is replaced; fields and values.
-- Returns 1, or 0 if another Relay was first.
local m = redis.call('HMGET', KEYS[1], 'id', 'sealed')
if m[1] ~= ARGV[1] then return redis.error_reply('EPOCH the outbox is another one than before') end
if KEYS[5] then
  if redis.call('ZREM', KEYS[3], ARGV[7]) == 0 then return 0 end
  redis.call('DEL', KEYS[5])
elseif (m[2] or '0') ~= ARGV[2] then
  return 0
end
if ARGV[5] ~= '' then
  for from = 8, #ARGV, 1000 do
    redis.call('HSET', KEYS[4], unpack(ARGV, from, math.min(from + 999, #ARGV)))
  end
  redis.call('ZADD', KEYS[3], ARGV[4], ARGV[5])
end
if not KEYS[5] then
  redis.call('XTRIM', KEYS[2], 'MINID', ARGV[6])
  redis.call('HSET', KEYS[1], 'sealed', ARGV[3])
end
return 1

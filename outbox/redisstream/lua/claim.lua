-- Claims what is due at one endpoint, about the oldest first.
-- KEYS: backlog, lane, retries, endpoints, leases, meta. ARGV: key prefix, endpoint, consumer, how
-- many, how many of these from the express lane first, lease in ms, how many microseconds the
-- lane is opened for ('0': it is not), the bound of the fleet ('0' for none), outbox id.
-- Returns the time, when the next retry is due ('' for none), 'm' if there may be more now
-- or 'f' if the bound keeps it back; then for each claim: 'q' or 'x', the entry's id, the
-- delivery, how often it was claimed.
local prefix, endpoint, consumer, max = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local lease, open, bound = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local streams = {q = KEYS[1], x = KEYS[2]}
if redis.call('HGET', KEYS[6], 'id') ~= ARGV[9] then return redis.error_reply('EPOCH the outbox is another one than before') end
local now = clock()
local kept = look('HMGET', KEYS[4], endpoint .. '|lease', endpoint .. '|lane', endpoint .. '|rung')
local longest, lane, rung = tonumber(kept[1]), tonumber(kept[2]), kept[3]
local mark = look('ZSCORE', KEYS[5], endpoint)
look('XLEN', KEYS[1])
if open > 0 and (not lane or lane < now + open - 500000) then
  lane = now + open
  redis.call('HSET', KEYS[4], endpoint .. '|lane', text(lane))
end
local promoted, ended, first = promote(prefix, endpoint, now), 0, nil
if mark and tonumber(mark) <= now then ended, first = ends(prefix, endpoint, longest or lease, now) end
local most = max
if bound > 0 then most = math.max(0, math.min(max, bound + ended - claimed(prefix, endpoint))) end

local out, got = {text(now), '', ''}, {q = {}, x = {}, count = 0}
local function claim(which, entry, times)
  local list = got[which]
  list[#list + 1] = entry
  got.count = got.count + 1
  for _, v in ipairs({which, entry[1], entry[2][2], times}) do out[#out + 1] = v end
end

-- takeOver claims what others held for too long, those first that were claimed first.
local function takeOver(which)
  local cursor = '0-0'
  repeat
    if got.count >= most then return end
    local answer = redis.call('XAUTOCLAIM', streams[which], 'relay', consumer, longest or lease, cursor, 'COUNT', math.min(100, most - got.count))
    cursor = answer[1]
    for _, entry in ipairs(answer[2]) do
      claim(which, entry, text(pending(streams[which], entry[1], entry[1], 1)[1][4]))
      ended = ended - 1
    end
  until cursor == '0-0'
end
if ended > 0 then
  for _, which in ipairs({'q', 'x'}) do
    if pending(streams[which])[1] then takeOver(which) end
  end
end

-- fresh claims from a stream up to so many that nobody has claimed.
local function fresh(which, count)
  count = math.min(count, most - got.count)
  if count <= 0 then return end
  for _, entry in ipairs(read(streams[which], consumer, count)) do claim(which, entry, '1') end
end
if lane then fresh('x', tonumber(ARGV[5])) end
fresh('q', most)
if lane then fresh('x', most) end

if got.count > 0 then grant(prefix, endpoint, consumer, got, lease, longest, now) end
if mark and tonumber(mark) <= now then
  if got.count > 0 then first = math.min(first or math.huge, now + lease * 1000) end
  if ended > 0 then first = now end
  if first then
    redis.call('ZADD', KEYS[5], text(first), endpoint)
  else
    redis.call('ZREM', KEYS[5], endpoint)
  end
end
if got.count < most then -- it is empty now
  if rung then redis.call('HDEL', KEYS[4], endpoint .. '|rung') end
  if lane and lane < now and redis.call('XLEN', KEYS[2]) == 0 then
    redis.call('DEL', KEYS[2])
    redis.call('HDEL', KEYS[4], endpoint .. '|lane')
  end
elseif most == max then
  out[3] = 'm'
elseif rung or promoted > 0 or ended > 0 then
  out[3] = 'f'
end
if promoted > 0 and got.count >= most then wake(prefix, endpoint) end
local later = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
if later[2] then out[2] = text(tonumber(later[2])) end
return out

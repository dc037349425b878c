-- What several scripts share. Times are microseconds of the server's clock:
-- they fit a double exactly, but tostring would round them.
local function text(n) return string.format('%.0f', n) end

local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end

-- look reads a key of ours, and names it when it is of another type.
local function look(command, key, ...)
  local answer = redis.pcall(command, key, ...)
  if type(answer) == 'table' and answer.err then error({err = answer.err .. ' Key: ' .. key}) end
  return answer
end

-- head is what tells a repeat of an event: its fingerprint and, in two bytes, how many
-- deliveries were made. Where made is not known those are all of its endpoints'.
local function head(event, made) return string.sub(event, 2, 33) .. (made or string.sub(event, 34, 35)) end

-- many calls a command with a long list, in pieces that fit Lua's stack.
-- Pieces have an even length, so pairs stay together.
local function many(command, key, list)
  for from = 1, #list, 1000 do
    redis.call(command, key, unpack(list, from, math.min(from + 999, #list)))
  end
end

-- ring tells all Relays that an endpoint has work.
local function ring(bell, endpoint)
  redis.call('XADD', bell, 'MAXLEN', '~', 4096, '*', 'e', endpoint)
end

-- back puts a delivery among those of its endpoint that wait or wait again.
-- The second set, by time of accept, tells the oldest.
local function back(prefix, endpoint, due, tail)
  redis.call('ZADD', prefix .. 'r:' .. endpoint, due, tail)
  redis.call('ZADD', prefix .. 'c:' .. endpoint, string.match(tail, '^%d+'), tail)
end

-- sweep takes back the claims whose lease has ended, whoever had them.
local function sweep(prefix, lease, bell, now)
  local ended = redis.call('ZRANGE', lease, '-inf', text(now), 'BYSCORE', 'LIMIT', 0, 200)
  if #ended == 0 then return end
  local rung = {}
  for _, member in ipairs(ended) do
    local n, total, endpoint, id = string.match(member, '^[^|]*|(%d+)|(%d+)|([^|]*)|(.*)$')
    local kept = n and redis.pcall('HMGET', prefix .. 'e:' .. id, 'o', n)
    if kept and kept[1] then
      local due = kept[2] and string.match(kept[2], '^p%d+,(%d+)') or kept[1]
      back(prefix, endpoint, text(math.min(tonumber(due), now)), kept[1] .. '.' .. n .. '.' .. total .. '|' .. id)
      rung[endpoint] = true
    elseif n then
      redis.call('HINCRBY', prefix .. 'counts', endpoint .. '|x', 1) -- its event was deleted, or is of another type
    end
  end
  redis.call('ZREM', lease, unpack(ended))
  for endpoint in pairs(rung) do ring(bell, endpoint) end
end

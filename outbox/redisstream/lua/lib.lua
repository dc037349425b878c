-- What several scripts share. Times are microseconds of the server's clock:
-- they fit a double exactly, but tostring would round them.
local exact = string.format('%d', 2^52) == '4503599627370496' and '%d' or '%.0f' -- the faster one, where it is exact
local function text(n) return string.format(exact, n) end

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

-- held is a command to an event's hash. Where somebody put a key of another type in its place the event is lost, and no other
-- one: it returns nil, which nothing that a command answers is.
local function held(command, key, ...)
  local answer = redis.pcall(command, key, ...)
  if type(answer) ~= 'table' or not answer.err then return answer end
  if string.find(answer.err, 'WRONGTYPE', 1, true) then return nil end
  error({err = answer.err .. ' Key: ' .. key})
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

-- wake rings for an endpoint that has work, unless it was rung for already and no claim has
-- found it empty since: every Relay whose claim waits looks after a ring.
local function wake(prefix, endpoint)
  if redis.call('HSET', prefix .. 'endpoints', endpoint .. '|rung', '1') == 1 then
    redis.call('XADD', prefix .. 'bell', 'MAXLEN', '~', 4096, '*', 'e', endpoint)
  end
end

-- add appends a delivery to a stream. Ids rise with the outbox's order; where that was lost
-- (keys deleted by hand) the server makes the next id.
local function add(stream, id, tail)
  local answer = redis.pcall('XADD', stream, id, 'd', tail)
  if type(answer) == 'table' and answer.err then redis.call('XADD', stream, '*', 'd', tail) end
end

-- back puts a delivery at the end of its endpoint's line, once more. The set by time of
-- accept tells the oldest.
local function back(prefix, endpoint, order, tail)
  add(prefix .. 'q:' .. endpoint, text(order) .. '-0', tail)
  redis.call('ZADD', prefix .. 'c:' .. endpoint, string.match(tail, '^%d+'), tail)
end

-- orders returns a function that gives the next order number of the outbox, and one that keeps it.
local function orders(prefix, now)
  local last = math.max(tonumber(redis.call('HGET', prefix .. 'meta', 'last') or 0), now)
  return function()
    last = last + 1
    return last
  end, function() redis.call('HSET', prefix .. 'meta', 'last', text(last)) end
end

-- promote lets retries that are due join their endpoint's line. Returns how many did.
local function promote(prefix, endpoint, now)
  local retries = prefix .. 'r:' .. endpoint
  local due = look('ZRANGE', retries, '-inf', text(now), 'BYSCORE', 'LIMIT', 0, 500)
  if #due == 0 then return 0 end
  local next, keep = orders(prefix, now)
  for _, tail in ipairs(due) do back(prefix, endpoint, next(), tail) end
  keep()
  redis.call('ZREM', retries, unpack(due))
  return #due
end

-- read lets a consumer claim the oldest entries that nobody has claimed. A group that is
-- missing (the stream is new, or somebody destroyed it) is made from the stream's begin.
local function read(stream, consumer, count)
  local answer = redis.pcall('XREADGROUP', 'GROUP', 'relay', consumer, 'COUNT', count, 'STREAMS', stream, '>')
  if type(answer) == 'table' and answer.err then
    if not string.find(answer.err, 'NOGROUP', 1, true) then error({err = answer.err .. ' Key: ' .. stream}) end
    redis.call('XGROUP', 'CREATE', stream, 'relay', '0', 'MKSTREAM')
    answer = redis.call('XREADGROUP', 'GROUP', 'relay', consumer, 'COUNT', count, 'STREAMS', stream, '>')
  end
  return answer and answer[1] and answer[1][2] or {}
end

-- pending asks for claims; none where there is no group.
local function pending(stream, ...)
  local answer = redis.pcall('XPENDING', stream, 'relay', ...)
  return not answer.err and answer or {}
end

-- claimed is how many claims an endpoint has.
local function claimed(prefix, endpoint)
  return (pending(prefix .. 'q:' .. endpoint)[1] or 0) + (pending(prefix .. 'x:' .. endpoint)[1] or 0)
end

-- ends tells how many claims of an endpoint have ended, and when the first of the others
-- does (nil when there is none). The lease is in milliseconds.
local function ends(prefix, endpoint, lease, now)
  local ended, first = 0, nil
  for _, stream in ipairs({prefix .. 'q:' .. endpoint, prefix .. 'x:' .. endpoint}) do
    local from, page = '-', nil
    repeat
      page = pending(stream, from, '+', 1000)
      for _, p in ipairs(page) do
        local left = lease - p[3]
        if left <= 0 then
          ended = ended + 1
        elseif not first or left < first then
          first = left
        end
        from = '(' .. p[1]
      end
    until #page < 1000
  end
  return ended, first and now + first * 1000
end

-- grant notes claims that were made: their entries by line, how many, their lease, and the
-- longest that claims of the endpoint have had. Claims end after the longest lease that is under way;
-- a shorter one begins as if it had been idle for the difference.
local function grant(prefix, endpoint, consumer, got, lease, longest, now)
  if not longest or lease > longest then
    redis.call('HSET', prefix .. 'endpoints', endpoint .. '|lease', lease)
  elseif lease < longest then
    if claimed(prefix, endpoint) == got.count then
      redis.call('HSET', prefix .. 'endpoints', endpoint .. '|lease', lease)
    else
      for _, line in ipairs({'q', 'x'}) do
        for _, entry in ipairs(got[line] or {}) do
          redis.call('XCLAIM', prefix .. line .. ':' .. endpoint, 'relay', consumer, 0, entry[1], 'IDLE', longest - lease, 'JUSTID')
        end
      end
    end
  end
  redis.call('ZADD', prefix .. 'leases', 'LT', text(now + lease * 1000), endpoint)
end

-- stranded finds entries that were claimed once and are nobody's claim: somebody deleted a
-- consumer with its claims. What is acknowledged is deleted, so all entries up to the last
-- one that was claimed are claims.
local function stranded(stream, most)
  local groups, lost = redis.pcall('XINFO', 'GROUPS', stream), {}
  for _, g in ipairs(groups.err and {} or groups) do
    local info = {}
    for i = 1, #g, 2 do info[g[i]] = g[i + 1] end
    local known = redis.call('XRANGE', stream, '-', info['last-delivered-id'], 'COUNT', info.pending + most)
    if info.name == 'relay' and #known > info.pending then
      for _, entry in ipairs(known) do
        if not pending(stream, entry[1], entry[1], 1)[1] then lost[#lost + 1] = entry end
      end
    end
  end
  return lost
end

-- terms_of is what is searched for of an event: its terms and fields.
local function terms_of(event)
  local a, b, c, d, e, f = string.byte(event, 44, 49)
  return string.sub(event, 52, 51 + a * 16777216 + b * 65536 + c * 256 + d + e * 256 + f)
end

-- log appends to the log of events: the tail of a delivery and the terms of its event or, for one delivery that an
-- operator made, 'm' and its tail. Entries have the order of their last one as id.
local function log(prefix, list)
  for from = 1, #list, 512 do
    local to = math.min(from + 511, #list)
    local answer = redis.pcall('XADD', prefix .. 'log', string.match(list[to - 1], '%d+') .. '-0', unpack(list, from, to))
    if type(answer) == 'table' and answer.err then redis.call('XADD', prefix .. 'log', '*', unpack(list, from, to)) end
  end
end

-- Ends claims with their record, new state and due time, or hands them back.
-- KEYS: meta, counts, done; the streams of all claims; the events of all claims.
-- ARGV: key prefix, number of streams, of first attempts that delivered, of all claims, the
-- bytes of the records of the former, until when all their leases last, outbox id; for each stream: its
-- endpoint, 'q' or 'x', how many of the former; for the former, ordered by stream: ids of their entries,
-- their tails, their numbers among the event's deliveries, their records; for each
-- other claim: number of its stream, id of the entry, how often that was claimed, tail,
-- number of the delivery, record, and what it is: a letter for the state (p, d, f, x; r hands
-- it back), then 'c' if it had come back to the line before, 's' if a lease past its end does not
-- count though nobody took it over yet, 'h' if a record before follows (its name, the
-- record); for p follows the due time.
-- Returns a string with '1' for each claim that this has ended, '0' for one whose lease was lost.
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[7] then return redis.error_reply('EPOCH the outbox is another one than before') end
local prefix, S, F, N = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now, bytes, quick = clock(), tonumber(ARGV[5]), nil
quick = now < tonumber(ARGV[6])
local streams, a = {}, 8
for i = 1, S do
  streams[i] = {key = KEYS[3 + i], endpoint = ARGV[a], line = ARGV[a + 1], n = tonumber(ARGV[a + 2]), d = 0, f = 0, x = 0, over = {}, ended = {}}
  a = a + 3
end
local event = 3 + S
local ids, tails, numbers, records = a - 1, a - 1 + F, a - 1 + 2 * F, a - 1 + 3 * F
a = a + 4 * F
local answer, history = {}, {d = {}, f = {}, x = {}}
local next, keep, woken

-- over ends entries: they are no claims any more, and gone from their stream.
local function over(stream, ...)
  redis.call('XACK', stream, 'relay', ...)
  redis.call('XDEL', stream, ...)
end

-- recorded tells that a record stands there already: this very settlement was executed
-- before and its answer lost ('1'), or another one came first.
local function recorded(i, n, record)
  return redis.call('HGET', KEYS[event + i], n) == record and '1' or '0'
end

-- ours tells whether an entry is claimed still, by the claim that was the times-th.
local function ours(s)
  if s.stream.ended[s.id] then return false end
  local claim = pending(s.stream.key, s.id, s.id, 1)[1]
  if not claim or text(claim[4]) ~= s.times then return false end
  return not s.strict or claim[3] < tonumber(redis.call('HGET', prefix .. 'endpoints', s.stream.endpoint .. '|lease') or 0)
end

local function settle(i, s)
  if not ours(s) then return s.state ~= 'r' and recorded(i, s.n, s.record) or '0' end
  local stream, key = s.stream, KEYS[event + i]
  if s.state == 'r' then
    if not next then next, keep = orders(prefix, now) end
    back(prefix, stream.endpoint, next(), s.tail)
    woken = woken or {}
    woken[stream.endpoint] = true
  else
    if redis.call('HGET', key, s.n) ~= (s.before or false) then return recorded(i, s.n, s.record) end
    bytes = bytes + #s.record
    redis.call('HSET', key, s.n, s.record)
    if s.before then redis.call('HSET', key, s.name, s.before) end
    if s.due then
      redis.call('ZADD', prefix .. 'r:' .. stream.endpoint, s.due, s.tail)
      redis.call('ZADD', prefix .. 'c:' .. stream.endpoint, string.match(s.tail, '^%d+'), s.tail)
      stream.due = math.min(stream.due or math.huge, tonumber(s.due))
    else
      if s.waited then redis.call('ZREM', prefix .. 'c:' .. stream.endpoint, s.tail) end
      stream[s.state] = stream[s.state] + 1
      history[s.state][#history[s.state] + 1] = s.tail
    end
  end
  stream.over[#stream.over + 1], stream.ended[s.id] = s.id, true
  return '1'
end

-- Nobody may take a claim over before its lease has ended, so those that are in time need no
-- look. A record that is there already tells a repeat.
if quick then
  local repeats
  for i = 1, F do
    if redis.call('HSETNX', KEYS[event + i], ARGV[numbers + i], ARGV[records + i]) == 0 then
      repeats = repeats or {}
      repeats[i] = true
    end
  end
  local at = 1
  for _, stream in ipairs(streams) do
    if stream.n > 0 then
      stream.d = stream.n
      over(stream.key, unpack(ARGV, ids + at, ids + at + stream.n - 1))
      for i = at, repeats and at + stream.n - 1 or 0 do
        answer[i] = '1'
        if repeats[i] then
          answer[i], stream.d = recorded(i, ARGV[numbers + i], ARGV[records + i]), stream.d - 1
          bytes = bytes - #ARGV[records + i]
        else
          history.d[#history.d + 1] = ARGV[tails + i]
        end
      end
      at = at + stream.n
    end
  end
  if F > 0 and not repeats then
    answer[1] = string.rep('1', F)
    -- Tails stand as fields and as values: of an odd number one has an empty value.
    if F % 2 == 0 then
      redis.call('XADD', KEYS[3], '*', unpack(ARGV, tails + 1, tails + F))
    else
      redis.call('XADD', KEYS[3], '*', ARGV[tails + F], '', unpack(ARGV, tails + 1, tails + F - 1))
    end
  end
else
  bytes = 0
  local i = 0
  for _, stream in ipairs(streams) do
    for _ = 1, stream.n do
      i = i + 1
      answer[i] = settle(i, {stream = stream, id = ARGV[ids + i], times = '1', tail = ARGV[tails + i],
        n = ARGV[numbers + i], record = ARGV[records + i], state = 'd'})
    end
  end
end
for i = F + 1, N do
  local s = {stream = streams[tonumber(ARGV[a])], id = ARGV[a + 1], times = ARGV[a + 2], tail = ARGV[a + 3], n = ARGV[a + 4], record = ARGV[a + 5]}
  local what = ARGV[a + 6]
  s.state, s.waited, s.strict = string.sub(what, 1, 1), string.find(what, 'c', 2, true), string.find(what, 's', 2, true)
  a = a + 7
  if string.find(what, 'h', 2, true) then s.name, s.before, a = ARGV[a], ARGV[a + 1], a + 2 end
  if s.state == 'p' then s.due, a = ARGV[a], a + 1 end
  answer[#answer + 1] = settle(i, s)
end

for state, key in pairs({d = KEYS[3], f = prefix .. 'failed', x = KEYS[3]}) do
  local h = history[state]
  if #h % 2 == 1 then h[#h + 1] = '' end
  for from = 1, #h, 512 do redis.call('XADD', key, '*', unpack(h, from, math.min(from + 511, #h))) end
end
for _, stream in ipairs(streams) do
  if #stream.over > 0 then over(stream.key, unpack(stream.over)) end
  for _, state in ipairs({'d', 'f', 'x'}) do
    if stream[state] > 0 then redis.call('HINCRBY', KEYS[2], stream.endpoint .. '|' .. state, stream[state]) end
  end
  if stream.due then
    redis.call('ZADD', prefix .. 'agenda', 'LT', text(stream.due), stream.endpoint)
    if stream.due <= now then woken = woken or {}; woken[stream.endpoint] = true end
  end
end
if next then keep() end
for endpoint in pairs(woken or {}) do wake(prefix, endpoint) end
if bytes > 0 then redis.call('HINCRBY', KEYS[1], 'bytes', bytes) end
return table.concat(answer)

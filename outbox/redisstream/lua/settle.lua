-- Ends claims with their record, new state and due time, or hands them back.
-- KEYS: meta, counts, done; the streams of all claims; each event of which a first attempt delivered,
-- once; the events of all other claims.
-- ARGV: key prefix, number of streams, of first attempts that delivered, of their events, of all claims,
-- the bytes of the records of the former, until when all their leases last, outbox id, what statistics
-- tell of all claims: see statRows in statistics.go; for each stream: its
-- endpoint, 'q' or 'x', how many of the former; for the former, ordered by stream: ids of their entries,
-- their tails; for each of their events, how many of them, then for these: number among the
-- event's deliveries, record; for each
-- other claim: number of its stream, id of the entry, how often that was claimed, tail,
-- number of the delivery, record, and what it is: a letter for the state (p, d, f, x; r hands
-- it back), then 'c' if it had come back to the line before, 's' if a lease past its end does not
-- count though nobody took it over yet, 'h' if a record before follows (its name, the
-- record); for p follows the due time.
-- Returns a string with '1' for each claim that this has ended, 'w' where it has and a key of another type stands in the
-- event's place, so that there is no record; '0' for one whose lease was lost.
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[8] then return redis.error_reply('EPOCH the outbox is another one than before') end
local prefix, S, F, E, N = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local now, bytes, quick = clock(), tonumber(ARGV[6]), nil
quick = now < tonumber(ARGV[7])
local streams, a = {}, 11
for i = 1, S do
  streams[i] = {key = KEYS[3 + i], endpoint = ARGV[a], line = ARGV[a + 1], n = tonumber(ARGV[a + 2]), d = 0, f = 0, x = 0, over = {}, ended = {}}
  a = a + 3
end
local event = 3 + S
local ids, tails, sums, written = a - 1, a - 1 + F, a - 1 + 2 * F, a - 1 + 2 * F + E
a = a + 4 * F + E
local answer, history = {}, {d = {}, f = {}, x = {}}
local next, keep, woken, void

-- without notes that a claim changed nothing.
local function without(i)
  void = void or {}
  void[i] = true
end

-- recorded tells that a record stands there already: this very settlement was executed
-- before and its answer lost ('1'), or another one came first.
local function recorded(key, n, record)
  local found = held('HGET', key, n)
  if found == nil then return 'w' end
  return found == record and '1' or '0'
end

-- ours tells whether an entry is claimed still, by the claim that was the times-th.
local function ours(s)
  if s.stream.ended[s.id] then return false end
  local claim = pending(s.stream.key, s.id, s.id, 1)[1]
  if not claim or text(claim[4]) ~= s.times then return false end
  return not s.strict or claim[3] < tonumber(redis.call('HGET', prefix .. 'endpoints', s.stream.endpoint .. '|lease') or 0)
end

local function settle(i, key, s)
  if not ours(s) then
    without(i)
    return s.state ~= 'r' and recorded(key, s.n, s.record) or '0'
  end
  local stream, gone = s.stream, false
  if s.state == 'r' then
    if not next then next, keep = orders(prefix, now) end
    back(prefix, stream.endpoint, next(), s.tail)
    woken = woken or {}
    woken[stream.endpoint] = true
  else
    local before = held('HGET', key, s.n)
    gone = before == nil
    if not gone then
      if before ~= (s.before or false) then
        without(i)
        return recorded(key, s.n, s.record)
      end
      bytes = bytes + #s.record
      redis.call('HSET', key, s.n, s.record)
      if s.before then redis.call('HSET', key, s.name, s.before) end
    end
    if s.due then
      redis.call('ZADD', prefix .. 'r:' .. stream.endpoint, s.due, s.tail)
      redis.call('ZADD', prefix .. 'c:' .. stream.endpoint, string.match(s.tail, '^%d+'), s.tail)
      stream.due = math.min(stream.due or math.huge, tonumber(s.due))
    else
      if s.waited then redis.call('ZREM', prefix .. 'c:' .. stream.endpoint, s.tail) end
      stream[s.state] = stream[s.state] + 1
      history[s.state][#history[s.state] + 1] = s.tail
      if s.state ~= 'd' and not gone then redis.call('ZADD', prefix .. (s.state == 'f' and 'f:' or 'd:') .. stream.endpoint, string.match(s.tail, '^%d+'), s.tail) end
    end
  end
  stream.over[#stream.over + 1], stream.ended[s.id] = s.id, true
  return gone and 'w' or '1'
end

-- finish ends the claims of first attempts that delivered, and tells whether all were pending.
local function finish()
  local at, all = ids + 1, true
  for _, stream in ipairs(streams) do
    local n = stream.n
    if n > 0 then
      if redis.call('XACK', stream.key, 'relay', unpack(ARGV, at, at + n - 1)) < n then all = false end
      redis.call('XDEL', stream.key, unpack(ARGV, at, at + n - 1))
      at, stream.d = at + n, n
    end
  end
  return all
end

-- eachFirst calls f for each of these claims: its number, stream, event, number of the delivery, record.
local function eachFirst(f)
  local records, at, i = {}, written, 0
  for e = 1, E do
    local of = {}
    for _ = 1, tonumber(ARGV[sums + e]) do
      of[ARGV[at + 1]] = ARGV[at + 2]
      at = at + 2
    end
    records[KEYS[event + e]] = of
  end
  for _, stream in ipairs(streams) do
    for _ = 1, stream.n do
      i = i + 1
      local n, id = string.match(ARGV[tails + i], '^%d+%.(%d+)%.%d+|(.*)$')
      local key = prefix .. 'e:' .. id
      f(i, stream, key, n, records[key][n])
    end
  end
end

-- Nobody may take a claim over before its lease has ended, and what is pending was not settled
-- before, so those that are in time need no look at their records. Where some are not
-- pending, this very call was executed before and its answer lost, or somebody deleted groups or
-- consumers: a record that is there already tells a repeat.
if not quick then
  bytes = 0
  eachFirst(function(i, stream, key, n, record)
    answer[i] = settle(i, key, {stream = stream, id = ARGV[ids + i], times = '1', tail = ARGV[tails + i], n = n, record = record, state = 'd'})
  end)
elseif F > 0 and finish() then
  local at, gone = written, nil
  for e = 1, E do
    local n, key = 2 * tonumber(ARGV[sums + e]), KEYS[event + e]
    if held('HSET', key, unpack(ARGV, at + 1, at + n)) == nil then
      gone = gone or {}
      gone[key] = true
    end
    at = at + n
  end
  answer[1] = string.rep('1', F)
  if gone then
    eachFirst(function(i, _, key, _, record)
      answer[i] = gone[key] and 'w' or '1'
      if gone[key] then bytes = bytes - #record end
    end)
  end
  -- Tails stand as fields and as values: of an odd number one has an empty value.
  if F % 2 == 0 then
    redis.call('XADD', KEYS[3], '*', unpack(ARGV, tails + 1, tails + F))
  else
    redis.call('XADD', KEYS[3], '*', ARGV[tails + F], '', unpack(ARGV, tails + 1, tails + F - 1))
  end
elseif F > 0 then
  eachFirst(function(i, stream, key, n, record)
    -- A server that replaced another one may not have the event: there is nothing to settle then.
    if redis.call('EXISTS', key) == 1 and held('HSETNX', key, n, record) == 1 then
      answer[i] = '1'
      history.d[#history.d + 1] = ARGV[tails + i]
    else
      answer[i], stream.d, bytes = recorded(key, n, record), stream.d - 1, bytes - #record
      without(i)
    end
  end)
end
event = event + E - F
for i = F + 1, N do
  local s = {stream = streams[tonumber(ARGV[a])], id = ARGV[a + 1], times = ARGV[a + 2], tail = ARGV[a + 3], n = ARGV[a + 4], record = ARGV[a + 5]}
  local what = ARGV[a + 6]
  s.state, s.waited, s.strict = string.sub(what, 1, 1), string.find(what, 'c', 2, true), string.find(what, 's', 2, true)
  a = a + 7
  if string.find(what, 'h', 2, true) then s.name, s.before, a = ARGV[a], ARGV[a + 1], a + 2 end
  if s.state == 'p' then s.due, a = ARGV[a], a + 1 end
  answer[#answer + 1] = settle(i, KEYS[event + i], s)
end

for state, key in pairs({d = KEYS[3], f = prefix .. 'failed', x = KEYS[3]}) do
  local h = history[state]
  if #h % 2 == 1 then h[#h + 1] = '' end
  for from = 1, #h, 512 do redis.call('XADD', key, '*', unpack(h, from, math.min(from + 511, #h))) end
end
for _, stream in ipairs(streams) do
  if #stream.over > 0 then
    redis.call('XACK', stream.key, 'relay', unpack(stream.over))
    redis.call('XDEL', stream.key, unpack(stream.over))
  end
  for _, state in ipairs({'d', 'f', 'x'}) do
    if stream[state] > 0 then redis.call('HINCRBY', KEYS[2], stream.endpoint .. '|' .. state, stream[state]) end
  end
  if stream.due then
    redis.call('ZADD', prefix .. 'agenda', 'LT', text(stream.due), stream.endpoint)
    if stream.due <= now then woken = woken or {}; woken[stream.endpoint] = true end
  end
end
local rows = ARGV[10]
if void then
  local effective = {}
  for i = 1, N do
    if not void[i] then effective[#effective + 1] = string.sub(rows, 9 * i - 8, 9 * i) end
  end
  rows = table.concat(effective)
end
if rows ~= '' then redis.call('XADD', prefix .. 'took', '*', 'd', ARGV[9], 'r', rows) end
if next then keep() end
for endpoint in pairs(woken or {}) do wake(prefix, endpoint) end
if bytes > 0 then redis.call('HINCRBY', KEYS[1], 'bytes', bytes) end
return table.concat(answer)

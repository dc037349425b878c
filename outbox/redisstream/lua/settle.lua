-- Ends claims with their record, new state and due time.
-- KEYS: meta, lease, counts, bell, done, failed, agenda; for each endpoint: retries,
-- created; the events of all settlements.
-- ARGV: number of endpoints, of first attempts that delivered, of all settlements, and the bytes of
-- the records of the former; for each endpoint: name, how many of the former; for
-- the former: their members in the set of leases, their tails, their numbers among the
-- event's deliveries, their records, the numbers of their endpoints; for each other settlement: member, tail,
-- endpoint, number of the delivery, record, and what it is: a letter for the state (p, d,
-- f, x), then 'c' if it was among the retries, 's' if a lease past its end does not count
-- though nobody took it back yet, 'h' if a record before follows (name, value); for p
-- follows the due time.
-- Returns a string with '1' for each settlement that holds, '0' for one whose lease was lost.
local meta, lease, counts, bell, agenda = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[7]
local now, E, F, S = clock(), tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local endpoints, a = {}, 5
for i = 1, E do
  endpoints[i] = {name = ARGV[a], d = tonumber(ARGV[a + 1]), f = 0, x = 0}
  a = a + 2
end
local bytes, event = tonumber(ARGV[4]), 7 + 2 * E
local members, tails, numbers, records, owners = a - 1, a - 1 + F, a - 1 + 2 * F, a - 1 + 3 * F, a - 1 + 4 * F
local answer, straight = {}, true
if F > 0 then
  for _, score in ipairs(redis.call('ZMSCORE', lease, unpack(ARGV, a, a + F - 1))) do
    if not score then straight = false end
  end
end
if F > 0 and straight then
  for i = 1, F do redis.call('HSET', KEYS[event + i], ARGV[numbers + i], ARGV[records + i]) end
  -- Tails stand as fields and as values: of an odd number one has an empty value.
  if F % 2 == 0 then
    redis.call('XADD', KEYS[5], '*', unpack(ARGV, tails + 1, tails + F))
  else
    redis.call('XADD', KEYS[5], '*', ARGV[tails + F], '', unpack(ARGV, tails + 1, tails + F - 1))
  end
  redis.call('ZREM', lease, unpack(ARGV, a, a + F - 1))
  answer[1] = string.rep('1', F)
elseif F > 0 then
  bytes = 0
  for i = 1, E do endpoints[i].d = 0 end
end
a = a + 5 * F

local history = {d = {}, f = {}, x = {}}
local function settle(s)
  local score = redis.call('ZSCORE', lease, s.member)
  if not score or tonumber(score) <= now and s.strict then
    -- Perhaps this very settlement was executed before and its answer lost.
    return redis.call('HGET', s.event, s.n) == s.record and '1' or '0'
  end
  local e = s.endpoint
  bytes = bytes + #s.record
  redis.call('HSET', s.event, s.n, s.record)
  if s.name then redis.call('HSET', s.event, s.name, s.before) end
  if s.due then
    redis.call('ZADD', e.retries, s.due, s.tail)
    redis.call('ZADD', e.created, string.match(s.tail, '^%d+'), s.tail)
    e.due = math.min(e.due or math.huge, tonumber(s.due))
  else
    if s.waited then redis.call('ZREM', e.created, s.tail) end
    e[s.state] = e[s.state] + 1
    history[s.state][#history[s.state] + 1] = s.tail
  end
  redis.call('ZREM', lease, s.member)
  return '1'
end

for i = 1, E do
  endpoints[i].retries, endpoints[i].created = KEYS[6 + 2 * i], KEYS[7 + 2 * i]
end
if F > 0 and not straight then
  for i = 1, F do
    answer[i] = settle({member = ARGV[members + i], tail = ARGV[tails + i], endpoint = endpoints[tonumber(ARGV[owners + i])],
      n = ARGV[numbers + i], record = ARGV[records + i], state = 'd', event = KEYS[event + i]})
  end
end
for i = F + 1, S do
  local s = {member = ARGV[a], tail = ARGV[a + 1], endpoint = endpoints[tonumber(ARGV[a + 2])], n = ARGV[a + 3], record = ARGV[a + 4], event = KEYS[event + i]}
  local what = ARGV[a + 5]
  s.state, s.waited, s.strict = string.sub(what, 1, 1), string.find(what, 'c', 2, true), string.find(what, 's', 2, true)
  a = a + 6
  if string.find(what, 'h', 2, true) then s.name, s.before, a = ARGV[a], ARGV[a + 1], a + 2 end
  if s.state == 'p' then s.due, a = ARGV[a], a + 1 end
  answer[#answer + 1] = settle(s)
end

for state, key in pairs({d = KEYS[5], f = KEYS[6], x = KEYS[5]}) do
  local h = history[state]
  if #h % 2 == 1 then h[#h + 1] = '' end
  for from = 1, #h, 512 do redis.call('XADD', key, '*', unpack(h, from, math.min(from + 511, #h))) end
end
for _, e in ipairs(endpoints) do
  for _, state in ipairs({'d', 'f', 'x'}) do
    if e[state] > 0 then redis.call('HINCRBY', counts, e.name .. '|' .. state, e[state]) end
  end
  if e.due then
    redis.call('ZADD', agenda, 'LT', text(e.due), e.name)
    if e.due <= now then ring(bell, e.name) end
  end
end
if bytes > 0 then redis.call('HINCRBY', meta, 'bytes', bytes) end
return table.concat(answer)

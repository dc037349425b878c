-- Ends claims with their record, new state and due time.
-- KEYS: meta, lease, counts, bell, done, failed, agenda; for each endpoint: retries,
-- created; for each settlement: event.
-- ARGV: number of endpoints, number of settlements; for each endpoint: name; for
-- each settlement: tail, rest of the lease's member, endpoint, number of the delivery,
-- record, and what it is: a letter for the state (p, d, f, x), then 'c' if it was
-- among the retries, 's' if a lease past its end does not count though nobody took it
-- back yet, 'h' if a record before follows (name, value); for p follows the due time.
-- Returns a string with '1' for each settlement that holds, '0' for one whose lease was lost.
local meta, lease, counts, bell, agenda = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[7]
local history = {d = {}, f = {}, x = {}}
local now, E, S = clock(), tonumber(ARGV[1]), tonumber(ARGV[2])
local endpoints, a = {}, 3
for i = 1, E do
  endpoints[i] = {name = ARGV[a], retries = KEYS[6 + 2 * i], created = KEYS[7 + 2 * i], d = 0, f = 0, x = 0, known = {}}
  a = a + 1
end
local list, members = {}, {}
for i = 1, S do
  local s = {tail = ARGV[a], endpoint = endpoints[tonumber(ARGV[a + 2])], n = ARGV[a + 3], record = ARGV[a + 4], what = ARGV[a + 5], event = KEYS[7 + 2 * E + i]}
  members[i] = s.tail .. ARGV[a + 1]
  a = a + 6
  if string.find(s.what, 'h', 2, true) then s.name, s.before, a = ARGV[a], ARGV[a + 1], a + 2 end
  if string.byte(s.what) == 112 then s.due, a = ARGV[a], a + 1 end
  list[i] = s
end
local held = {}
for from = 1, S, 1000 do
  local part = redis.call('ZMSCORE', lease, unpack(members, from, math.min(from + 999, S)))
  for i, score in ipairs(part) do held[from + i - 1] = score end
end

local answer, over, bytes = {}, {}, 0
for i, s in ipairs(list) do
  local e, state = s.endpoint, string.sub(s.what, 1, 1)
  if held[i] and (tonumber(held[i]) > now or not string.find(s.what, 's', 2, true)) then
    answer[i] = '1'
    over[#over + 1] = members[i]
    bytes = bytes + #s.record
    if s.name then
      redis.call('HSET', s.event, s.n, s.record, s.name, s.before)
    else
      redis.call('HSET', s.event, s.n, s.record)
    end
    if s.due then
      redis.call('ZADD', e.retries, s.due, s.tail)
      redis.call('ZADD', e.created, string.match(s.tail, '^%d+'), s.tail)
      e.due = math.min(e.due or math.huge, tonumber(s.due))
    else
      if string.find(s.what, 'c', 2, true) then e.known[#e.known + 1] = s.tail end
      e[state] = e[state] + 1
      history[state][#history[state] + 1] = s.tail
      history[state][#history[state] + 1] = ''
    end
  else
    -- Perhaps this very settlement was executed before and its answer lost.
    answer[i] = redis.call('HGET', s.event, s.n) == s.record and '1' or '0'
  end
end
for state, key in pairs({d = KEYS[5], f = KEYS[6], x = KEYS[5]}) do
  local h = history[state]
  for from = 1, #h, 512 do redis.call('XADD', key, '*', unpack(h, from, math.min(from + 511, #h))) end
end
for _, e in ipairs(endpoints) do
  for _, state in ipairs({'d', 'f', 'x'}) do
    if e[state] > 0 then redis.call('HINCRBY', counts, e.name .. '|' .. state, e[state]) end
  end
  many('ZREM', e.created, e.known)
  if e.due then
    redis.call('ZADD', agenda, 'LT', text(e.due), e.name)
    if e.due <= now then ring(bell, e.name) end
  end
end
if bytes > 0 then redis.call('HINCRBY', meta, 'bytes', bytes) end
many('ZREM', lease, over)
return table.concat(answer)

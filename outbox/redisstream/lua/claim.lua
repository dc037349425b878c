-- Leases what is due at one endpoint, oldest due first; of the newest too, where that is asked for.
-- KEYS: lease, bell, backlog, retries; with a bound or some of the newest: created, bounded. ARGV: key
-- prefix, endpoint, how many, lease, fence prefix, first fence; with one of the two:
-- how many of the newest, the bound ('0' for none), '1' to count leases made without a bound, too.
-- Returns the time, when the next retry is due ('' for none), how many of the claims are
-- the newest, '1' if the bound keeps back what is due; then for each claim: its tail, its due
-- time, and where it was ('q' backlog, 'r' retries). The newest come last.
local lease, bell, backlog, retries = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local prefix, endpoint, max = ARGV[1], ARGV[2], tonumber(ARGV[3])
local now = clock()
sweep(prefix, lease, bell, now)

-- held counts the claims of a bounded endpoint: those of its own set that still have their lease.
local function held(bounded)
  if ARGV[9] == '1' then
    local others = {}
    for _, member in ipairs(redis.call('ZRANGE', lease, 0, -1)) do
      if string.match(member, '^[^|]*|%d+|%d+|([^|]*)|') == endpoint then
        others[#others + 1], others[#others + 2] = text(now), member
      end
    end
    many('ZADD', bounded, others)
  end
  local members, ended = look('ZRANGE', bounded, 0, -1), {}
  for from = 1, #members, 1000 do
    for i, score in ipairs(redis.call('ZMSCORE', lease, unpack(members, from, math.min(from + 999, #members)))) do
      if not score then ended[#ended + 1] = members[from + i - 1] end
    end
  end
  many('ZREM', bounded, ended)
  return #members - #ended
end

-- newest finds deliveries without an attempt: in the backlog and, after a release or a lost
-- lease, among those that wait again. It returns them oldest first.
local function newest(created, n)
  local found = {}
  for _, entry in ipairs(redis.call('XREVRANGE', backlog, '+', '-', 'COUNT', n)) do
    local o, k = string.match(entry[1], '^(%d+)-(%d+)$')
    found[#found + 1] = {o = o, at = o, tail = o .. '.' .. k .. '.' .. entry[2][2], entry = entry[1]}
  end
  local after = found[n] and '(' .. found[n].o or '-inf'
  for _, tail in ipairs(redis.call('ZRANGE', created, '+inf', after, 'BYSCORE', 'REV', 'LIMIT', 0, n + 32)) do
    local due = redis.call('ZSCORE', retries, tail)
    local o, k, id = string.match(tail, '^(%d+)%.(%d+)%.%d+|(.*)$')
    if due and tonumber(due) <= now and redis.call('HSTRLEN', prefix .. 'e:' .. id, k) == 0 then
      found[#found + 1] = {o = o, at = text(tonumber(due)), tail = tail}
    end
  end
  table.sort(found, function(a, b) return tonumber(a.o) > tonumber(b.o) end)
  local out = {}
  for i = math.min(n, #found), 1, -1 do out[#out + 1] = found[i] end
  return out
end

local most, bound, last, taken = max, tonumber(ARGV[8] or 0), {}, {}
if bound > 0 then most = math.max(0, math.min(max, bound - held(KEYS[6]))) end
if ARGV[7] and most > 0 then
  -- Where the bound allows less than was asked for, both kinds get their share over time.
  local n = math.floor((tonumber(ARGV[7]) * most + now % max) / max)
  if n > 0 then last = newest(KEYS[5], n) end
  for _, x in ipairs(last) do taken[x.o] = true end
end

local due = redis.call('ZRANGE', retries, '-inf', text(now), 'BYSCORE', 'LIMIT', 0, max, 'WITHSCORES')
local waiting = redis.call('XRANGE', backlog, '-', '+', 'COUNT', max)
local out, leases, fromBacklog, fromRetries = {text(now), '', tostring(#last), ''}, {}, {}, {}
local until_, fence, d, w = text(now + tonumber(ARGV[4])), tonumber(ARGV[6]), 1, 1

local function claim(tail, at, entry)
  if entry then fromBacklog[#fromBacklog + 1] = entry else fromRetries[#fromRetries + 1] = tail end
  local n, total, id = string.match(tail, '^%d+%.(%d+)%.(%d+)|(.*)$')
  leases[#leases + 1] = until_
  leases[#leases + 1] = ARGV[5] .. text(fence) .. '|' .. n .. '|' .. total .. '|' .. endpoint .. '|' .. id
  fence = fence + 1
  out[#out + 1], out[#out + 2], out[#out + 3] = tail, at, entry and 'q' or 'r'
end

-- left tells whether there is more in either line, beside the newest.
local function left()
  while #last > 0 and due[d] and taken[string.match(due[d], '^%d+')] do d = d + 2 end
  while #last > 0 and waiting[w] and taken[string.match(waiting[w][1], '^%d+')] do w = w + 1 end
  return due[d] or waiting[w]
end

while #leases < 2 * (most - #last) and left() do
  local o, n
  if waiting[w] then o, n = string.match(waiting[w][1], '^(%d+)-(%d+)$') end
  local retryFirst = due[d] and not o
  if due[d] and o then
    local score = tonumber(due[d + 1])
    retryFirst = score < tonumber(o) or score == tonumber(o) and string.match(due[d], '^%d+') < o
  end
  if retryFirst then
    claim(due[d], text(tonumber(due[d + 1])))
    d = d + 2
  else
    claim(o .. '.' .. n .. '.' .. waiting[w][2][2], o, waiting[w][1])
    w = w + 1
  end
end
if most < max and left() then out[4] = '1' end
for _, x in ipairs(last) do claim(x.tail, x.at, x.entry) end

-- The lease stands before the place in line is given up.
many('ZADD', lease, leases)
if bound > 0 then many('ZADD', KEYS[6], leases) end
many('ZREM', retries, fromRetries)
if #fromBacklog > 0 then
  many('XDEL', backlog, fromBacklog)
  if redis.call('XLEN', backlog) == 0 then redis.call('DEL', backlog) end
end
local later = redis.call('ZRANGE', retries, 0, 0, 'WITHSCORES')
if later[2] then out[2] = text(tonumber(later[2])) end
return out

-- Accepts several batches, each whole or not at all. Not allowed beyond
-- maxmemory: Redis then refuses it before its first line.
--
-- KEYS: meta, lease, counts, bell, done; for each endpoint: backlog, retries; the events of all
-- entries; the tombstones of those whose id the app chose; the records of requests with a key.
-- ARGV: outbox id, limit in bytes, window in ms, number of endpoints, of batches, of entries,
-- '1' if no id is there twice and no request has a key; for each endpoint: name, how
-- many deliveries the caller has time for, for how long; for each batch: number of entries, fingerprint or '';
-- for each entry: event, targets ('a' or 'g' for an id of the app or a generated one,
-- then two bytes for each endpoint), and for each target the member of a lease, or ''
-- when the caller has no time for that delivery.
--
-- Returns for each endpoint whether its deliveries are leased ('l') or in the backlog
-- ('q'), then a string for each batch, or one for all: see read in accept.go.
local meta, lease, counts, bell, done = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local m = redis.call('HMGET', meta, 'id', 'last', 'bytes')
if m[1] ~= ARGV[1] then return redis.error_reply('EPOCH the outbox is another one than before') end
local last, bytes, limit = tonumber(m[2] or 0), tonumber(m[3] or 0), tonumber(ARGV[2])
local now, E, B, N = clock(), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

-- Reads come before all writes: a key of another type ends the script here, not half-way.
look('HLEN', counts)
look('ZCARD', lease)
look('XLEN', bell)
look('XLEN', done)
local endpoints, flags, a = {}, {}, 8
for i = 1, E do
  local e = {name = ARGV[a], free = ARGV[a + 1] ~= '0', ends = text(now + tonumber(ARGV[a + 2])), backlog = KEYS[4 + 2 * i], queued = 0, accepted = 0}
  e.length = look('XLEN', e.backlog)
  if e.length > 0 then
    e.free = false -- who came first goes first
    local top = redis.call('XREVRANGE', e.backlog, '+', '-', 'COUNT', 1)
    last = math.max(last, tonumber(string.match(top[1][1], '^%d+')))
  elseif e.free then
    local first = look('ZRANGE', KEYS[5 + 2 * i], 0, 0, 'WITHSCORES')
    if first[2] and tonumber(first[2]) <= now then e.free = false end
  end
  flags[i] = e.free and 'l' or 'q'
  endpoints[i] = e
  a = a + 3
end
local k, batches, idAt = 5 + 2 * E, a, #meta - 1 -- where the id begins in an event's key
a = a + 2 * B
local leases, unwanted = {}, {}

-- write keeps the entry whose event is KEYS[i] and whose arguments begin at ARGV[at].
local function write(i, at)
  last = last + 1
  if last < now then last = now end
  local targets, o = ARGV[at + 1], text(last)
  redis.call('HSET', KEYS[i], 'e', ARGV[at], 'o', o)
  local total = (#targets - 1) / 2
  for n = 0, total - 1 do
    local high, low = string.byte(targets, 2 * n + 2, 2 * n + 3)
    local e, member = endpoints[high * 256 + low + 1], ARGV[at + 2 + n]
    e.accepted = e.accepted + 1
    if e.free and member ~= '' then
      leases[#leases + 1] = e.ends
      leases[#leases + 1] = member
    else
      redis.call('XADD', e.backlog, o .. '-' .. n, 'r', total .. '|' .. string.sub(KEYS[i], idAt))
      e.queued = e.queued + 1
    end
  end
  if total == 0 then
    unwanted[#unwanted + 1] = o .. '.0.0|' .. string.sub(KEYS[i], idAt)
    unwanted[#unwanted + 1] = ''
  end
end

local function size(at) return #ARGV[at] + 420 + 60 * (#ARGV[at + 1] - 1) end
local function after(at) return at + 2 + (#ARGV[at + 1] - 1) / 2 end

-- exists counts how many of KEYS[from..to] are there.
local function exists(from, to)
  local found = 0
  for i = from, to, 1000 do found = found + redis.call('EXISTS', unpack(KEYS, i, math.min(i + 999, to))) end
  return found
end

-- all takes the straight way when nothing can refuse any batch.
local function all()
  if ARGV[7] ~= '1' or exists(k + 1, #KEYS) > 0 then return nil end
  local sum, at = 0, a
  for _ = 1, N do sum, at = sum + size(at), after(at) end
  if limit > 0 and bytes + sum > limit then return nil end
  bytes = bytes + sum
  local first = text(math.max(now, last + 1))
  for i = 1, N do
    write(k + i, a)
    a = after(a)
  end
  return 'A' .. first
end

-- known finds out which of n entries are repeats: a mark for each, or the index of
-- a conflict.
local function known(n, k, tombstone, at)
  local marks, seen = {}, {}
  for i = 1, n do
    local event, app, id, first = ARGV[at], string.byte(ARGV[at + 1]) == 97, KEYS[k + i], nil
    if app then tombstone = tombstone + 1 end
    first = seen[id]
    if not first then
      local kept = look('HGET', id, 'e')
      if kept == event then
        marks[i] = 'o' -- this very accept was executed before: its answer was lost
      elseif kept then
        first = string.sub(kept, 2, 35)
      elseif app then
        first = look('GET', KEYS[tombstone])
      end
    end
    if first then
      if not app or string.sub(event, 2, 33) ~= string.sub(first, 1, 32) then return nil, i - 1 end
      marks[i] = 'd' .. (string.byte(first, 33) * 256 + string.byte(first, 34))
    else
      marks[i] = marks[i] or 'n'
      seen[id] = string.sub(event, 2, 35)
    end
    at = after(at)
  end
  return marks, nil
end

local function batch(n, fingerprint, request, k, tombstone, at)
  local nonce = string.sub(ARGV[at], 36, 43)
  local before = request and look('GET', request)
  if before then
    if string.sub(before, 1, 32) ~= fingerprint then return 'C-1' end
    return (string.sub(before, 33, 40) == nonce and 'O' or 'K') .. string.sub(before, 41)
  end
  local marks, conflict = known(n, k, tombstone, at)
  if conflict then return 'C' .. conflict end
  local sum, from = 0, at
  for i = 1, n do
    if marks[i] == 'n' then sum = sum + size(from) end
    from = after(from)
  end
  if limit > 0 and sum > 0 and bytes + sum > limit then return 'F' end
  bytes = bytes + sum

  local first, receipts = text(math.max(now, last + 1)), {}
  for i = 1, n do
    if marks[i] == 'n' then write(k + i, at) end
    if request then
      local deliveries = string.match(marks[i], '^d(%d+)') or text((#ARGV[at + 1] - 1) / 2)
      receipts[i] = string.sub(KEYS[k + i], idAt) .. ':' .. deliveries
    end
    at = after(at)
  end
  if request then
    redis.call('SET', request, fingerprint .. nonce .. table.concat(receipts, ','), 'PX', ARGV[3])
  end
  return 'M' .. first .. '|' .. table.concat(marks, ',')
end

local answers = {table.concat(flags)}
answers[2] = all()
if not answers[2] then
  local tombstone, request, at = k + N, k + N, a
  for _ = 1, N do
    if string.byte(ARGV[at + 1]) == 97 then request = request + 1 end
    at = after(at)
  end
  for b = 1, B do
    local n, fingerprint, key = tonumber(ARGV[batches]), ARGV[batches + 1], nil
    batches = batches + 2
    if fingerprint ~= '' then
      request = request + 1
      key = KEYS[request]
    end
    -- A batch looks before it writes: one that meets a key of another type leaves no part
    -- of itself, and must not end the script half-way through the others.
    local ok, answer = pcall(batch, n, fingerprint, key, k, tombstone, a)
    answers[b + 1] = ok and answer or 'E' .. (type(answer) == 'table' and answer.err or tostring(answer))
    for _ = 1, n do
      if string.byte(ARGV[a + 1]) == 97 then tombstone = tombstone + 1 end
      a = after(a)
    end
    k = k + n
  end
end

many('ZADD', lease, leases)
for _, e in ipairs(endpoints) do
  if e.accepted > 0 then redis.call('HINCRBY', counts, e.name .. '|a', e.accepted) end
  if e.queued > 0 and e.length == 0 then ring(bell, e.name) end
end
for from = 1, #unwanted, 512 do
  redis.call('XADD', done, '*', unpack(unwanted, from, math.min(from + 511, #unwanted)))
end
redis.call('HSET', meta, 'last', text(last), 'bytes', text(bytes))
return answers

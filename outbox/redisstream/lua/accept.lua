-- Accepts several batches, each whole or not at all. Not allowed beyond
-- maxmemory: Redis then refuses it before its first line.
--
-- KEYS: meta, lease, counts, bell, done; for each endpoint: backlog, retries;
-- for each batch: the request's record if it has a key; for each entry: event, tombstone.
-- ARGV: outbox id, limit in bytes, window in ms, fence prefix, first fence, number of
-- endpoints, number of batches; for each endpoint: name, how many deliveries may be
-- leased to the caller, for how long; for each batch: fingerprint or '', number of
-- entries (negative: an id is there twice); for each entry: id, event, targets
-- ('a' or 'g' for an id of the app or a generated one, then two bytes for each endpoint).
--
-- Returns one string for each batch: see parseAccepted in accept.go.
local meta, lease, counts, bell, done = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local m = redis.call('HMGET', meta, 'id', 'last', 'bytes')
if m[1] ~= ARGV[1] then return redis.error_reply('EPOCH the outbox is another one than before') end
local last, bytes, limit = tonumber(m[2] or 0), tonumber(m[3] or 0), tonumber(ARGV[2])
local now = clock()
local prefix, fence = ARGV[4], tonumber(ARGV[5])

-- Reads come before all writes: a key of another type ends the script here, not half-way.
redis.call('HLEN', counts)
redis.call('ZCARD', lease)
redis.call('XLEN', bell)
redis.call('XLEN', done)
local endpoints, k, a = {}, 6, 8
for i = 1, tonumber(ARGV[6]) do
  local e = {name = ARGV[a], free = tonumber(ARGV[a + 1]), lease = tonumber(ARGV[a + 2]), backlog = KEYS[k], queued = 0, accepted = 0}
  e.length = redis.call('XLEN', e.backlog)
  if e.length > 0 then
    e.free = 0 -- who came first goes first
    local top = redis.call('XREVRANGE', e.backlog, '+', '-', 'COUNT', 1)
    last = math.max(last, tonumber(string.match(top[1][1], '^%d+')))
  elseif e.free > 0 then
    local first = redis.call('ZRANGE', KEYS[k + 1], 0, 0, 'WITHSCORES')
    if first[2] and tonumber(first[2]) <= now then e.free = 0 end
  end
  endpoints[i] = e
  k, a = k + 2, a + 3
end

local leases, unwanted = {}, {}

-- known finds out which entries are repeats. It returns a mark for each and the
-- number of fresh ones, or nil and the index of a conflict.
local function known(n, twice, k, a)
  local keys = {}
  for i = 0, n - 1 do
    keys[#keys + 1] = KEYS[k + 2 * i]
    if string.byte(ARGV[a + 3 * i + 2]) == 97 then keys[#keys + 1] = KEYS[k + 2 * i + 1] end
  end
  local found = 0
  for from = 1, #keys, 1000 do
    found = found + redis.call('EXISTS', unpack(keys, from, math.min(from + 999, #keys)))
  end
  if found == 0 and not twice then return nil, nil end

  local marks, seen = {}, {}
  for i = 0, n - 1 do
    local id, event, targets = ARGV[a + 3 * i], ARGV[a + 3 * i + 1], ARGV[a + 3 * i + 2]
    local app = string.byte(targets) == 97
    local first = seen[id]
    if not first then
      local kept = redis.call('HGET', KEYS[k + 2 * i], 'e')
      if kept == event then
        marks[i] = 'o' -- this very accept was executed before: its answer was lost
      elseif kept then
        first = string.sub(kept, 2, 35)
      elseif app then
        first = redis.call('GET', KEYS[k + 2 * i + 1])
      end
    end
    if first then
      if not app or string.sub(event, 2, 33) ~= string.sub(first, 1, 32) then return nil, i end
      marks[i] = 'd' .. (string.byte(first, 33) * 256 + string.byte(first, 34))
    else
      marks[i] = marks[i] or 'n'
      seen[id] = string.sub(event, 2, 35)
    end
  end
  return marks, nil
end

-- write keeps one fresh entry.
local flags
local function write(key, id, event, targets)
  last = math.max(now, last + 1)
  local o, total = text(last), (#targets - 1) / 2
  redis.call('HSET', key, 'e', event, 'o', o)
  for n = 0, total - 1 do
    local high, low = string.byte(targets, 2 * n + 2, 2 * n + 3)
    local e = endpoints[high * 256 + low + 1]
    e.accepted = e.accepted + 1
    if e.free > 0 then
      e.free = e.free - 1
      leases[#leases + 1] = text(now + e.lease)
      leases[#leases + 1] = o .. '.' .. n .. '.' .. total .. '|' .. id .. '|' .. e.name .. '|' .. o .. '|' .. prefix .. text(fence)
      fence = fence + 1
      flags[#flags + 1] = 'l'
    else
      redis.call('XADD', e.backlog, o .. '-' .. n, 'r', total .. '|' .. id)
      e.queued = e.queued + 1
      flags[#flags + 1] = 'q'
    end
  end
  if total == 0 then
    unwanted[#unwanted + 1] = o .. '.0.0|' .. id
    unwanted[#unwanted + 1] = ''
  end
end

local function batch(fingerprint, request, n, twice, k, a)
  local nonce = string.sub(ARGV[a + 1], 36, 43)
  local before = request and redis.call('GET', request)
  if before then
    if string.sub(before, 1, 32) ~= fingerprint then return 'C-1' end
    return (string.sub(before, 33, 40) == nonce and 'O' or 'K') .. string.sub(before, 41)
  end
  local marks, conflict = known(n, twice, k, a)
  if conflict then return 'C' .. conflict end

  local size = 0
  for i = 0, n - 1 do
    if not marks or marks[i] == 'n' then
      size = size + #ARGV[a + 3 * i + 1] + 420 + 60 * (#ARGV[a + 3 * i + 2] - 1)
    end
  end
  if limit > 0 and size > 0 and bytes + size > limit then return 'F' end
  bytes = bytes + size

  flags = {}
  local first = math.max(now, last + 1)
  local receipts = {}
  for i = 0, n - 1 do
    local id, event, targets = ARGV[a + 3 * i], ARGV[a + 3 * i + 1], ARGV[a + 3 * i + 2]
    if not marks or marks[i] == 'n' then write(KEYS[k + 2 * i], id, event, targets) end
    if request then
      local duplicate = marks and string.match(marks[i], '^d(%d+)')
      receipts[#receipts + 1] = id .. ':' .. (duplicate or text((#targets - 1) / 2))
    end
  end
  if request then
    redis.call('SET', request, fingerprint .. nonce .. table.concat(receipts, ','), 'PX', ARGV[3])
  end
  if not marks then return 'A' .. text(first) .. '|' .. table.concat(flags) end
  local list = {}
  for i = 0, n - 1 do list[i + 1] = marks[i] end
  return 'M' .. text(first) .. '|' .. table.concat(flags) .. '|' .. table.concat(list, ',')
end

local answers = {}
for b = 1, tonumber(ARGV[7]) do
  local fingerprint, n, request = ARGV[a], tonumber(ARGV[a + 1]), nil
  a = a + 2
  if fingerprint ~= '' then request, k = KEYS[k], k + 1 end
  local entries = math.abs(n)
  answers[b] = batch(fingerprint, request, entries, n < 0, k, a)
  k, a = k + 2 * entries, a + 3 * entries
end

many('ZADD', lease, leases)
for _, e in ipairs(endpoints) do
  if e.accepted > 0 then redis.call('HINCRBY', counts, e.name .. '|a', e.accepted) end
  if e.queued > 0 and e.length == 0 then ring(bell, e.name) end
end
if #unwanted > 0 then
  for from = 1, #unwanted, 512 do
    redis.call('XADD', done, '*', unpack(unwanted, from, math.min(from + 511, #unwanted)))
  end
end
redis.call('HSET', meta, 'last', text(last), 'bytes', text(bytes))
return answers

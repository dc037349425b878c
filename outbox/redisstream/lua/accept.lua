-- Accepts several batches, each whole or not at all, and claims for the caller's workers what
-- is the oldest then. Not allowed beyond maxmemory: Redis then refuses it before its first line.
--
-- KEYS: meta, counts, bell, done, endpoints, leases; for each endpoint: backlog, lane; the events of all
-- entries; the tombstones of those whose id the app chose; the records of requests with a key.
-- ARGV: outbox id, limit in bytes, window in ms, number of endpoints, of batches, of entries,
-- '1' if no id is there twice, no request has a key and no delivery is on terms, 't' if one is;
-- the consumer, how many deliveries the express lane has room for;
-- for each endpoint: name, how many deliveries the caller has workers for, for how many ms;
-- for each batch: number of entries, fingerprint or '';
-- for each entry: event, targets ('a' or 'g' for an id of the app or a generated one,
-- then two bytes for each endpoint), and where a delivery is on terms the term of each target
-- or '': see appendTerm in codec.go.
--
-- Returns a string with 'm' for each endpoint that may have more to claim, 'q' or 'x' where the
-- deliveries of this accept are all claimed from that line, else '-'; the time; a list of claims: number of the endpoint, 'q' or 'x', the entry's id, the delivery;
-- then a string for each batch, or one for all: see read in group.go.
local meta, counts, bell, done = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local m = redis.call('HMGET', meta, 'id', 'last', 'bytes', 'logged')
if m[1] ~= ARGV[1] then return redis.error_reply('EPOCH the outbox is another one than before') end
local last, bytes, limit = tonumber(m[2] or 0), tonumber(m[3] or 0), tonumber(ARGV[2])
local now, E, B, N = clock(), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

-- Reads come before all writes: a key of another type ends the script here, not half-way.
look('HLEN', counts)
look('ZCARD', KEYS[6])
look('XLEN', bell)
look('XLEN', done)
local terms, prefix, consumer = ARGV[7] == 't', string.sub(meta, 1, -5), ARGV[8]
if terms then look('XLEN', prefix .. 'failed') end
local endpoints, fields, a = {}, {}, 10
for i = 1, E do
  local name = ARGV[a]
  endpoints[i] = {name = name, free = tonumber(ARGV[a + 1]), lease = tonumber(ARGV[a + 2]),
    backlog = KEYS[5 + 2 * i], lane = KEYS[6 + 2 * i], queued = 0, accepted = 0, failed = 0, room = 0}
  fields[3 * i - 2], fields[3 * i - 1], fields[3 * i] = name .. '|lease', name .. '|lane', name .. '|rung'
  look('XLEN', endpoints[i].backlog)
  a = a + 3
end
for from = 1, #fields, 999 do
  local kept = look('HMGET', KEYS[5], unpack(fields, from, math.min(from + 998, #fields)))
  for k = 1, #kept, 3 do
    local e = endpoints[(from + k + 1) / 3]
    e.longest, e.rung = tonumber(kept[k]), kept[k + 2]
    if kept[k + 1] and tonumber(kept[k + 1]) > now then e.room = math.max(0, tonumber(ARGV[9]) - look('XLEN', e.lane)) end
  end
end
-- pair is a number in two bytes, as events have it.
local function pair(n) return string.char(math.floor(n / 256), n % 256) end

local k, batches, idAt = 6 + 2 * E, a, #meta - 1 -- where the id begins in an event's key
a = a + 2 * B
local unwanted, failures, logged, ended = {}, {}, {}, {}

-- failed notes a delivery that is failed from the start for the history and for statistics.
local function failed(endpoint, o, tail, event)
  redis.call('ZADD', prefix .. 'f:' .. endpoint, o, tail)
  ended[#ended + 1], ended[#ended + 2] = #ended .. '|' .. endpoint, terms_of(event)
end

-- digits has the texts of small numbers: Lua makes them by printf, which costs more than the rest of a delivery's text.
local digits = {}
local function short(n)
  local known = digits[n]
  if not known then
    known = text(n)
    digits[n] = known
  end
  return known
end

-- write keeps the entry whose event is KEYS[i] and whose arguments begin at ARGV[at]; over
-- is what judge says of its deliveries, nil when none is on terms.
local function write(i, at, over)
  last = last + 1
  if last < now then last = now end
  local targets, o = ARGV[at + 1], text(last)
  redis.call('HSET', KEYS[i], 'e', ARGV[at], 'o', o)
  local total, made = (#targets - 1) / 2, 0
  local before, after = o .. '.', '.' .. short(total) .. '|' .. string.sub(KEYS[i], idAt) -- of a number, in a delivery's text
  for n = 0, total - 1 do
    local high, low = string.byte(targets, 2 * n + 2, 2 * n + 3)
    local e = endpoints[high * 256 + low + 1]
    local ended = over and over[n]
    if ended == '' then
      redis.call('HSET', KEYS[i], n, '-') -- as if retention had removed it
    else
      made = made + 1
      e.accepted = e.accepted + 1
      if ended then
        local record = 'f0,' .. o .. ',' .. o .. ',' .. ended
        redis.call('HSET', KEYS[i], n, record)
        bytes = bytes + #record
        e.failed = e.failed + 1
        failures[#failures + 1] = before .. short(n) .. after
        failures[#failures + 1] = ''
        failed(e.name, o, failures[#failures - 1], ARGV[at])
      else
        local number = short(n)
        local id, tail = o .. '-' .. number, before .. number .. after
        e.first = e.first or id
        if e.room > 0 then
          e.room, e.fresh = e.room - 1, true
          add(e.lane, id, tail)
        else
          e.late = true
          add(e.backlog, id, tail)
        end
        e.queued = e.queued + 1
      end
    end
  end
  if made == 0 then
    unwanted[#unwanted + 1] = before .. '0' .. after
    unwanted[#unwanted + 1] = ''
  end
  if made > 0 then
    logged[#logged + 1], logged[#logged + 2] = before .. '0' .. after, terms_of(ARGV[at])
  end
  if made < total then
    -- Retention counts those that are gone. For an event without deliveries it counts one more, that of the history.
    redis.call('HSET', KEYS[i], 'm', pair(made), 'g', total - math.max(made, 1))
  end
end

-- judge decides about the deliveries of an entry. It returns those that are over from the
-- start, with the attempt that tells why ('' for one that its mark leaves out), and
-- how many are made. What marks remember from now on it puts into levels.
local function judge(at, levels)
  local total, over = (#ARGV[at + 1] - 1) / 2, {}
  local made = total
  for n = 0, total - 1 do
    local level, lower, ms, length, rest = string.match(ARGV[at + 2 + n], '^t(%d*),(%d),(%d+),(%d+),(.*)$')
    local attempt = level and string.sub(rest, length + 1)
    if attempt and attempt ~= '' then over[n] = attempt end
    if level and level ~= '' then
      local key = prefix .. 'm:' .. string.sub(rest, 1, length)
      local last = levels[key] and levels[key].level or look('GET', key) or string.rep('0', #level)
      if level > last or lower == '1' and level < last then levels[key] = {level = level, ms = ms} end
      if level <= last then over[n], made = '', made - 1 end
    end
  end
  return over, made
end

local function size(at) return #ARGV[at] + 480 + 64 * (#ARGV[at + 1] - 1) end
local function after(at) return at + 2 + (terms and (#ARGV[at + 1] - 1) / 2 or 0) end

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
-- a conflict; and for those that are fresh what judge says.
local function known(n, k, tombstone, at)
  local marks, seen, overs, levels = {}, {}, {}, {}
  for i = 1, n do
    local event, app, id = ARGV[at], string.byte(ARGV[at + 1]) == 97, KEYS[k + i]
    local first, mark = seen[id], 'd'
    if app then tombstone = tombstone + 1 end
    if not first then
      local kept = look('HGET', id, 'e')
      if kept then
        first = head(kept, look('HGET', id, 'm'))
        if kept == event then mark = 'o' end -- this very accept was executed before: its answer was lost
      elseif app then
        first = look('GET', KEYS[tombstone])
      end
    end
    if not first then
      local made
      marks[i] = 'n'
      if terms then
        overs[i], made = judge(at, levels)
        marks[i], made = 'n' .. made, pair(made)
      end
      first = head(event, made)
    elseif mark == 'd' and (not app or string.sub(event, 2, 33) ~= string.sub(first, 1, 32)) then
      return nil, i - 1
    else
      marks[i] = mark .. (string.byte(first, 33) * 256 + string.byte(first, 34))
    end
    seen[id] = first
    at = after(at)
  end
  return marks, nil, overs, levels
end

local function batch(n, fingerprint, request, k, tombstone, at)
  local nonce = string.sub(ARGV[at], 36, 43)
  local before = request and look('GET', request)
  if before then
    if string.sub(before, 1, 32) ~= fingerprint then return 'C-1' end
    return (string.sub(before, 33, 40) == nonce and 'O' or 'K') .. string.sub(before, 41)
  end
  local marks, conflict, overs, levels = known(n, k, tombstone, at)
  if conflict then return 'C' .. conflict end
  local sum, from = 0, at
  for i = 1, n do
    if string.byte(marks[i]) == 110 then sum = sum + size(from) end
    from = after(from)
  end
  if limit > 0 and sum > 0 and bytes + sum > limit then return 'F' end
  bytes = bytes + sum

  local receipts = {}
  for i = 1, n do
    if string.byte(marks[i]) == 110 then
      redis.call('DEL', KEYS[k + i]) -- records are left where somebody deleted the event
      write(k + i, at, overs[i])
    end
    if request then
      local deliveries = string.match(marks[i], '%d+') or text((#ARGV[at + 1] - 1) / 2)
      receipts[i] = string.sub(KEYS[k + i], idAt) .. ':' .. deliveries
    end
    at = after(at)
  end
  for key, mark in pairs(levels) do redis.call('SET', key, mark.level, 'PX', mark.ms) end
  if request then
    redis.call('SET', request, fingerprint .. nonce .. table.concat(receipts, ','), 'PX', ARGV[3])
  end
  return 'M' .. table.concat(marks, ',')
end

local answers = {}
answers[4] = all()
if not answers[4] then
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
    answers[b + 3] = ok and answer or 'E' .. (type(answer) == 'table' and answer.err or tostring(answer))
    for _ = 1, n do
      if string.byte(ARGV[a + 1]) == 97 then tombstone = tombstone + 1 end
      a = after(a)
    end
    k = k + n
  end
end

-- claim lets the caller's workers have what is the oldest at an endpoint now, whichever
-- deliveries these are. It returns how many it claimed, and 'q' or 'x' where they are just
-- those of this accept, in that line: the caller knows them.
local claims, plain = {}, string.byte(answers[4]) == 65
local function claim(i, e)
  local got, own = {count = 0}, nil
  local function from(which, stream)
    local entries = read(stream, consumer, e.free - got.count)
    got[which], got.count = entries, got.count + #entries
    if plain and not e.rung and #entries == e.queued and entries[1][1] == e.first then
      own = which
      return
    end
    local c = #claims
    for _, entry in ipairs(entries) do
      claims[c + 1], claims[c + 2], claims[c + 3], claims[c + 4] = i, which, entry[1], entry[2][2]
      c = c + 4
    end
  end
  if e.late or e.rung then from('q', e.backlog) end
  if (e.fresh or e.rung) and got.count < e.free then from('x', e.lane) end
  if got.count > 0 then grant(prefix, e.name, consumer, got, e.lease, e.longest, now) end
  return got.count, own
end

local flags = {}
for i, e in ipairs(endpoints) do
  flags[i] = '-'
  if e.accepted > 0 then redis.call('HINCRBY', counts, e.name .. '|a', e.accepted) end
  if e.failed > 0 then redis.call('HINCRBY', counts, e.name .. '|f', e.failed) end
  local left = e.queued
  if left > 0 and e.free > 0 then
    local got, own = claim(i, e)
    left = left - got
    flags[i] = own or flags[i]
    if e.rung and got < e.free then -- both lines are empty
      redis.call('HDEL', KEYS[5], e.name .. '|rung')
      left = 0
    elseif e.rung then
      left = 1
    end
  end
  if left > 0 then
    flags[i] = 'm'
    if not e.rung then wake(prefix, e.name) end
  end
end
for from = 1, #unwanted, 512 do
  redis.call('XADD', done, '*', unpack(unwanted, from, math.min(from + 511, #unwanted)))
end
for from = 1, #failures, 512 do
  redis.call('XADD', prefix .. 'failed', '*', unpack(failures, from, math.min(from + 511, #failures)))
end
log(prefix, logged)
for from = 1, #ended, 512 do
  redis.call('XADD', prefix .. 'took', '*', unpack(ended, from, math.min(from + 511, #ended)))
end
answers[1], answers[2], answers[3] = table.concat(flags), text(now), claims
redis.call('HSET', meta, 'last', text(last), 'bytes', text(bytes), 'logged', text(tonumber(m[4] or 0) + #logged / 2))
return answers

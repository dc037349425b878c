-- Makes a new delivery of an event. Not allowed beyond maxmemory, as an accept.
-- KEYS: meta, counts, the event. ARGV: outbox id, key prefix, limit in bytes, event id, order and number of the delivery
-- that is repeated, how many deliveries the event had at its accept, id of that delivery, endpoint, what tells a
-- repeat of this call or '', terms of the event at that endpoint, bytes of a delivery, what makes a new one needless ('',
-- p pending ones, d delivered ones too), a number whose greater ones were made later, number of the first delivery of the event at that
-- endpoint, -1 for none.
-- Returns what became of it: D done, R done before, each with order and number of the delivery; N not found, S it is
-- not over, E the event was erased, F full, A the same work sends it, W another one is pending, V another one was delivered.
local m = redis.call('HMGET', KEYS[1], 'id', 'bytes')
if m[1] ~= ARGV[1] then return redis.error_reply('EPOCH the outbox is another one than before') end
local prefix, limit, id, total, endpoint, once, size = ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[7]), ARGV[9], ARGV[10], tonumber(ARGV[12])
local key = KEYS[3]
if once ~= '' then
  local n = held('HGET', key, 'w' .. once)
  local made = n and redis.call('HGET', key, 'r' .. n)
  if made then return {'R', string.match(made, '^%d+'), n} end
end
local record = delivery(key, ARGV[5], ARGV[6], total)
if record == nil then return {'N'} end
if not record or string.byte(record) == 112 then return {'S', 'p'} end
local kept = redis.call('HMGET', key, 'z', 'x')
if kept[1] then return {'E'} end

-- needless tells which other delivery of the event makes a new one needless: the newest that does.
local function needless(unless, after, first)
  local work = string.match(once, '^[^.]*%.')
  local function judge(n, record)
    if n == tonumber(ARGV[6]) or record == '-' then return end
    if not record or string.byte(record) == 112 then return 'W' end
    if unless == 'd' and n > after and string.byte(record) == 100 then return 'V' end
  end
  local last = tonumber(kept[2] or total)
  for from = last - 1, total, -500 do
    local made, to = {}, math.max(total, from - 499)
    for n = from, to, -1 do made[#made + 1] = 'r' .. n end
    made = redis.call('HMGET', key, unpack(made))
    for i = 1, #made do
      local at, by
      if made[i] then at, by = made_at(made[i]) end
      if at == endpoint then
        if work and string.sub(by, 1, #work) == work then return 'A' end
        local why = judge(from + 1 - i, redis.call('HGET', key, text(from + 1 - i)))
        if why then return why end
      end
    end
  end
  return first >= 0 and judge(first, redis.call('HGET', key, text(first)))
end

if ARGV[13] ~= '' then
  local why = needless(ARGV[13], tonumber(ARGV[14]), tonumber(ARGV[15]))
  if why then return {why} end
end
if limit > 0 and tonumber(m[2] or 0) + size > limit then return {'F'} end
local next, keep = orders(prefix, clock())
local o, n = text(next()), text(tonumber(kept[2] or total))
redis.call('HSET', key, 'x', text(n + 1), 'r' .. n, o .. '|' .. ARGV[8] .. '|' .. #once .. '|' .. once .. endpoint)
if once ~= '' then redis.call('HSET', key, 'w' .. once, n) end
local tail = o .. '.' .. n .. '.' .. text(total) .. '|' .. id
add(prefix .. 'q:' .. endpoint, o .. '-' .. n, tail)
redis.call('HINCRBY', KEYS[2], endpoint .. '|a', 1)
log(prefix, {'m' .. tail, ARGV[11]})
keep()
redis.call('HINCRBY', KEYS[1], 'bytes', size)
redis.call('HINCRBY', KEYS[1], 'logged', 1)
wake(prefix, endpoint)
return {'D', o, n}

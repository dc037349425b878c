
-- number reads an unsigned number of 7 bits a byte, and returns it and where the next part begins.
local function number(s, at)
  local n, unit = 0, 1
  repeat
    local b = string.byte(s, at)
    n, unit, at = n + b % 128 * unit, unit * 128, at + 1
  until b < 128
  return n, at
end

-- endpoint_of is the endpoint of one of an event's first deliveries: see appendTerms in codec.go.
local function endpoint_of(event, n)
  local length, at = number(event, 52)
  for _ = 0, n do
    length, at = number(event, at)
    at = at + length
  end
  return string.sub(event, at - length, at - 1)
end

-- made_at is the endpoint of a delivery that an operator made, and what tells a repeat of that.
local function made_at(made)
  local length, rest = string.match(made, '^%d+|[^|]*|(%d+)|(.*)$')
  return string.sub(rest, length + 1), string.sub(rest, 1, length)
end

-- measured writes a text with its length, as statistics have it.
local function measured(s)
  local n, out = #s, ''
  while n > 127 do out, n = out .. string.char(n % 128 + 128), math.floor(n / 128) end
  return out .. string.char(n) .. s
end

-- unqueue takes a pending delivery out of its line. It tells false, and does nothing, if an attempt is under way, unless
-- by force. A delivery that has come back to the line and waits there stays in it: a claim finds that it is over.
local function unqueue(prefix, endpoint, tail, force)
  if redis.call('ZREM', prefix .. 'r:' .. endpoint, tail) == 1 then return true end
  local lease = tonumber(redis.call('HGET', prefix .. 'endpoints', endpoint .. '|lease') or 0)
  local function remove(stream, id, claim)
    if claim and not force and claim[3] < lease then return false end
    if claim then redis.call('XACK', stream, 'relay', id) end
    redis.call('XDEL', stream, id)
    return true
  end
  local o, n = string.match(tail, '^(%d+)%.(%d+)')
  for _, line in ipairs({'q:', 'x:'}) do
    local stream, id = prefix .. line .. endpoint, o .. '-' .. n
    if #redis.call('XRANGE', stream, id, id) > 0 then return remove(stream, id, pending(stream, id, id, 1)[1]) end
  end
  for _, line in ipairs({'q:', 'x:'}) do
    local stream, from, page = prefix .. line .. endpoint, '-', nil
    repeat
      page = pending(stream, from, '+', 1000)
      for _, claim in ipairs(page) do
        local entry = redis.call('XRANGE', stream, claim[1], claim[1])[1]
        if entry and entry[2][2] == tail then return remove(stream, claim[1], claim) end
        from = '(' .. claim[1]
      end
    until #page < 1000
  end
  return true
end

-- drop ends a pending delivery as discarded, with its record so far (false for none). kind is type and tenant of the
-- event, for statistics. It returns how many bytes came, or nil if an attempt is under way.
local function drop(prefix, key, tail, endpoint, record, code, kind, now, force)
  if not unqueue(prefix, endpoint, tail, force) then return nil end
  local o, n = string.match(tail, '^(%d+)%.(%d+)')
  local ended = 'x0,' .. o .. ',' .. text(now) .. ',' .. code .. ',0,'
  if record then
    local begin, rest = string.match(record, '^p(%d+,%d+),%d+,[^,]*,(.*)$')
    ended = 'x' .. begin .. ',' .. text(now) .. ',' .. code .. ',' .. rest
  end
  redis.call('HSET', key, n, ended)
  redis.call('ZREM', prefix .. 'c:' .. endpoint, tail)
  redis.call('HINCRBY', prefix .. 'counts', endpoint .. '|x', 1)
  redis.call('XADD', prefix .. 'done', '*', tail, '')
  redis.call('ZADD', prefix .. 'd:' .. endpoint, o, tail)
  redis.call('XADD', prefix .. 'took', '*', 'd', measured(endpoint) .. kind, 'r', '\0\0\6\0\0\0\0\0\0')
  return #ended - #(record or '')
end

-- delivery reads one of an event's deliveries: its record (false for none), what is known of it if an operator made it;
-- nil if there is none of that order.
local function delivery(key, order, n, total)
  local kept = held('HMGET', key, 'o', n, 'r' .. n) or {}
  local record, made = kept[2], kept[3]
  local of = kept[1]
  if tonumber(n) >= total then of = made and string.match(made, '^%d+') end
  if of ~= order or record == '-' then return nil end
  return record, made
end

-- Removes data and fields of an event, and the texts of its attempts.
-- KEYS: meta, the event. ARGV: outbox id, key prefix, event id, order of the event, '1' to discard pending deliveries, their
-- code, type and tenant as statistics have them.
-- Returns D done, R done before, N not found, S if a delivery is pending.
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then return redis.error_reply('EPOCH the outbox is another one than before') end
local prefix, id, key, now, bytes = ARGV[2], ARGV[3], KEYS[2], clock(), 0
local kept = held('HMGET', key, 'o', 'e', 'z', 'x') or {}
local event = kept[2]
if not event or kept[1] ~= ARGV[4] then return {'N'} end
if kept[3] then return {'R'} end
local total = string.byte(event, 34) * 256 + string.byte(event, 35)
local orders, list = {ARGV[4]}, {}
for n = 0, tonumber(kept[4] or total) - 1 do
  local found = redis.call('HMGET', key, n, 'r' .. n)
  local record, o, endpoint = found[1], ARGV[4], nil
  if n < total then
    endpoint = endpoint_of(event, n)
  elseif found[2] then
    o, endpoint = string.match(found[2], '^%d+'), made_at(found[2])
    orders[#orders + 1] = o
  end
  if endpoint and record ~= '-' then
    list[#list + 1] = {n = n, record = record, endpoint = endpoint, tail = o .. '.' .. n .. '.' .. total .. '|' .. id}
    if ARGV[5] ~= '1' and (not record or string.byte(record) == 112) then return {'S', 'p'} end
  end
end
local function cut(field, record)
  local head, length = string.match(record, '^(%a%d+,%d+,%d+,[^,]*,(%d+),)')
  if head and #record > #head + length then
    redis.call('HSET', key, field, string.sub(record, 1, #head + length))
    bytes = bytes + #head + length - #record
  end
end
for _, d in ipairs(list) do
  if not d.record or string.byte(d.record) == 112 then
    bytes = bytes + drop(prefix, key, d.tail, d.endpoint, d.record, ARGV[6], ARGV[7], now, true)
    d.record = redis.call('HGET', key, d.n)
  end
  cut(d.n, d.record)
  for k = 1, tonumber(string.match(d.record, '^%a(%d+)')) - 1 do
    local field = d.n .. '.' .. k
    cut(field, redis.call('HGET', key, field) or '')
  end
end
local a, b, c, d, e, f, g, h = string.byte(event, 44, 51)
local terms, fields, origin = a * 16777216 + b * 65536 + c * 256 + d, e * 256 + f, g * 256 + h
local rest = string.sub(event, 1, 47) .. '\0\0' .. string.sub(event, 50, 51 + terms) .. string.sub(event, 52 + terms + fields, 51 + terms + fields + origin)
redis.call('HSET', key, 'e', rest, 'z', text(now))
if fields > 0 then -- the history has them, too
  for _, o in ipairs(orders) do redis.call('ZADD', prefix .. 'erased', o, o) end
end
redis.call('HINCRBY', KEYS[1], 'bytes', bytes + #rest - #event)
return {'D'}

-- Removes finished deliveries that are older than a time.
-- KEYS: meta, history. ARGV: key prefix, oldest to keep in ms, how many, window in microseconds,
-- bytes of a delivery that an operator made.
-- Returns how many went, and whether there is more to do.
local prefix, now, removed, more, freed, ids = ARGV[1], clock(), 0, 0, 0, {}

-- drop removes an event; of an id that the app chose its fingerprint stays for the window.
local function drop(key, id, o, total)
  local event = redis.call('HGET', key, 'e')
  if not event then return end
  freed = freed + #event + 480 + 128 * total
  local left = math.floor((o + tonumber(ARGV[4]) - now) / 1000)
  if left > 0 and string.sub(event, 2, 33) ~= string.rep('\0', 32) then
    redis.call('SET', prefix .. 'i:' .. id, head(event, redis.call('HGET', key, 'm')), 'PX', text(left))
  end
  redis.call('DEL', key)
end

local entries = redis.call('XRANGE', KEYS[2], '-', ARGV[2], 'COUNT', 20)
for _, entry in ipairs(entries) do
  if removed >= tonumber(ARGV[3]) then
    more = 1
    break
  end
  for _, tail in ipairs(entry[2]) do -- fields and values, all the same
    local o, n, total, id = string.match(tail, '^(%d+)%.(%d+)%.(%d+)|(.*)$')
    local key = id and prefix .. 'e:' .. id
    local kept = key and held('HMGET', key, 'o', 'x', 'r' .. n)
    if kept and not kept[1] then redis.call('DEL', key) end -- records of an event that somebody deleted
    kept = kept or {} -- a key of another type stays: it is not ours
    local repeated = key and tonumber(n) >= math.max(1, tonumber(total)) -- an operator made it
    local order = kept[1]
    if repeated then order = kept[3] and string.match(kept[3], '^%d+') end
    if order and order == o then
      total = tonumber(total)
      local all = tonumber(kept[2] or total)
      local record = all > 0 and redis.call('HGET', key, n)
      if record and record ~= '-' then
        removed = removed + 1
        freed = freed + #record
        local state, attempts = string.match(record, '^(%a)(%d+)')
        if state ~= 'd' then
          local endpoint = kept[3] and made_at(kept[3]) or endpoint_of(redis.call('HGET', key, 'e'), tonumber(n))
          redis.call('ZREM', prefix .. (state == 'f' and 'f:' or 'd:') .. endpoint, tail)
        end
        for i = 1, tonumber(attempts) - 1 do
          freed = freed + redis.call('HSTRLEN', key, n .. '.' .. i)
          if all > 1 then redis.call('HDEL', key, n .. '.' .. i) end
        end
        if all > 1 then redis.call('HSET', key, n, '-') end
        if repeated then
          local _, once = made_at(kept[3])
          freed = freed + tonumber(ARGV[5])
          redis.call('HDEL', key, 'r' .. n, 'w' .. once)
        end
      end
      if all < 2 or redis.call('HINCRBY', key, 'g', 1) == all then drop(key, id, tonumber(redis.call('HGET', key, 'o')), total) end
    end
  end
  ids[#ids + 1] = entry[1]
end
if #entries == 20 then more = 1 end
if #ids > 0 then redis.call('XDEL', KEYS[2], unpack(ids)) end
if freed > 0 then redis.call('HINCRBY', KEYS[1], 'bytes', -freed) end
return {removed, more}

-- Reads deliveries for a page: events without their data, records without the texts of attempts.
-- KEYS: events. ARGV: for each event: its order (that of the delivery, if an operator made it; '' for any), the
-- first and the last number of its deliveries that are wanted (a first one below 0 is so many before the last one), 'm' if an operator made the one that is wanted.
-- Returns for each event nil if it is gone, '' if a key of another type is in its place, else: its head, when it was erased, how many deliveries
-- it had at its accept, its order, what is known of the first one that is wanted if an operator made that, the number of
-- the last one that follows, how many endpoints have a delivery that an operator made; of each of these its name and the
-- number of the newest; then the records, last one first.
local out, a = {}, 1

local function short(record)
  if not record then return false end
  local head, cut = string.match(record, '^(%a%d+,%d+,%d+,[^,]*,(%d+),)')
  return head and string.sub(record, 1, #head + cut) or record
end

-- repeats adds to a list which deliveries operators made, the newest of each endpoint: the numbers from total to more - 1.
local function repeats(key, total, more, found)
  local count, seen = 0, {}
  for from = more - 1, total, -500 do
    local fields = {}
    for n = from, math.max(total, from - 499), -1 do fields[#fields + 1] = 'r' .. n end
    for i, made in ipairs(redis.call('HMGET', key, unpack(fields))) do
      local length, rest = string.match(made or '', '^%d+|[^|]*|(%d+)|(.*)$')
      local endpoint = length and string.sub(rest, length + 1)
      if endpoint and not seen[endpoint] then
        seen[endpoint], count = true, count + 1
        found[#found + 1], found[#found + 2] = endpoint, text(from + 1 - i)
      end
    end
  end
  return text(count)
end

for i, key in ipairs(KEYS) do
  local low, high, made = tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), ARGV[a + 3] == 'm'
  local found = held('HMGET', key, 'o', 'e', 'z', 'r' .. ARGV[a + 1], 'x')
  local kept = found or {}
  local event = kept[2]
  local order = made and kept[4] and string.match(kept[4], '^%d+') or not made and kept[1]
  if event and (order == ARGV[a] or ARGV[a] == '') then
    local b, c, d, e, f, g, h, k = string.byte(event, 44, 51)
    local total = string.byte(event, 34) * 256 + string.byte(event, 35)
    if not made and high >= total then high = total - 1 end
    if low < 0 then low = math.max(0, high + 1 + low) end
    local head = string.sub(event, 1, 51 + b * 16777216 + c * 65536 + d * 256 + e + f * 256 + g + h * 256 + k)
    local found, fields = {head, kept[3] or '', text(total), kept[1], kept[4] or '', text(high), '0'}, {}
    if kept[5] then found[7] = repeats(key, total, tonumber(kept[5]), found) end
    for n = high, low, -1 do fields[#fields + 1] = n end
    if #fields > 0 then
      for _, record in ipairs(redis.call('HMGET', key, unpack(fields))) do found[#found + 1] = short(record) end
    end
    out[i] = found
  else
    out[i] = not found and ''
  end
  a = a + 4
end
return out

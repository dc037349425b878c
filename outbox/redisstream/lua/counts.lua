-- Counts of all endpoints, and when the oldest pending delivery was made.
-- KEYS: counts. ARGV: key prefix.
-- Returns name, accepted, delivered, failed, discarded, oldest for each endpoint.
local all = {}
local flat = redis.call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do
  local name, what = string.match(flat[i], '^(.*)|(%a)$')
  all[name] = all[name] or {a = 0, d = 0, f = 0, x = 0}
  all[name][what] = tonumber(flat[i + 1])
end
local out = {}
for name, e in pairs(all) do
  local oldest
  local function older(order)
    if order and (not oldest or tonumber(order) < oldest) then oldest = tonumber(order) end
  end
  if e.a > e.d + e.f + e.x then
    -- A stream's first entry is its oldest delivery, but for those that came back, which are in the set.
    for _, line in ipairs({'q:', 'x:'}) do
      local first = redis.call('XRANGE', ARGV[1] .. line .. name, '-', '+', 'COUNT', 1)[1]
      if first then older(string.match(first[2][2], '^%d+')) end
    end
    older(redis.call('ZRANGE', ARGV[1] .. 'c:' .. name, 0, 0, 'WITHSCORES')[2])
  end
  for _, v in ipairs({name, text(e.a), text(e.d), text(e.f), text(e.x), oldest and text(oldest) or ''}) do
    out[#out + 1] = v
  end
end
return out

-- Counts of all endpoints, and when the oldest pending delivery was made.
-- KEYS: counts, lease. ARGV: key prefix.
-- Returns name, accepted, delivered, failed, discarded, oldest for each endpoint.
local all = {}
local flat = redis.call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do
  local name, what = string.match(flat[i], '^(.*)|(%a)$')
  all[name] = all[name] or {a = 0, d = 0, f = 0, x = 0}
  all[name][what] = tonumber(flat[i + 1])
end
local function older(e, o)
  if o and (not e.oldest or tonumber(o) < e.oldest) then e.oldest = tonumber(o) end
end
for _, member in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  local endpoint, id = string.match(member, '^[^|]*|%d+|%d+|([^|]*)|(.*)$')
  if endpoint and all[endpoint] then older(all[endpoint], redis.call('HGET', ARGV[1] .. 'e:' .. id, 'o') or nil) end
end
local out = {}
for name, e in pairs(all) do
  if e.a > e.d + e.f + e.x then
    local head = redis.call('XRANGE', ARGV[1] .. 'q:' .. name, '-', '+', 'COUNT', 1)
    if head[1] then older(e, string.match(head[1][1], '^%d+')) end
    older(e, redis.call('ZRANGE', ARGV[1] .. 'c:' .. name, 0, 0, 'WITHSCORES')[2])
  end
  for _, v in ipairs({name, text(e.a), text(e.d), text(e.f), text(e.x), e.oldest and text(e.oldest) or ''}) do
    out[#out + 1] = v
  end
end
return out

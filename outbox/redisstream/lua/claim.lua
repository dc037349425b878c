-- Leases what is due at one endpoint, oldest due first.
-- KEYS: lease, bell, backlog, retries. ARGV: key prefix, endpoint, how many, lease,
-- fence prefix, first fence.
-- Returns the time, when the next retry is due ('' for none), then for each claim:
-- its tail, its due time, and where it was ('q' backlog, 'r' retries).
local lease, bell, backlog, retries = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local prefix, endpoint, max = ARGV[1], ARGV[2], tonumber(ARGV[3])
local now = clock()
sweep(prefix, lease, bell, now)

local due = redis.call('ZRANGE', retries, '-inf', text(now), 'BYSCORE', 'LIMIT', 0, max, 'WITHSCORES')
local fresh = redis.call('XRANGE', backlog, '-', '+', 'COUNT', max)
local out, leases, fromBacklog, fromRetries = {text(now), ''}, {}, {}, {}
local until_, fence, d, f = text(now + tonumber(ARGV[4])), tonumber(ARGV[6]), 1, 1
while #leases < 2 * max and (due[d] or fresh[f]) do
  local tail, at, where, o, n, total, id
  if fresh[f] then o, n = string.match(fresh[f][1], '^(%d+)-(%d+)$') end
  local retryFirst = due[d] and not o
  if due[d] and o then
    local score = tonumber(due[d + 1])
    retryFirst = score < tonumber(o) or score == tonumber(o) and string.match(due[d], '^%d+') < o
  end
  if retryFirst then
    tail, at, where = due[d], text(tonumber(due[d + 1])), 'r'
    n, total, id = string.match(tail, '^%d+%.(%d+)%.(%d+)|(.*)$')
    fromRetries[#fromRetries + 1] = tail
    d = d + 2
  else
    total, id = string.match(fresh[f][2][2], '^(%d+)|(.*)$')
    tail, at, where = o .. '.' .. n .. '.' .. total .. '|' .. id, o, 'q'
    fromBacklog[#fromBacklog + 1] = fresh[f][1]
    f = f + 1
  end
  leases[#leases + 1] = until_
  leases[#leases + 1] = ARGV[5] .. text(fence) .. '|' .. n .. '|' .. total .. '|' .. endpoint .. '|' .. id
  fence = fence + 1
  out[#out + 1], out[#out + 2], out[#out + 3] = tail, at, where
end

-- The lease stands before the place in line is given up.
many('ZADD', lease, leases)
many('ZREM', retries, fromRetries)
if #fromBacklog > 0 then
  many('XDEL', backlog, fromBacklog)
  if redis.call('XLEN', backlog) == 0 then redis.call('DEL', backlog) end
end
local later = redis.call('ZRANGE', retries, 0, 0, 'WITHSCORES')
if later[2] then out[2] = text(tonumber(later[2])) end
return out

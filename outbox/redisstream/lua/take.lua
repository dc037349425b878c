-- Takes tokens from a bucket, by the server's clock. A token is a whole number of units, and so
-- is what a microsecond brings: sums of them are exact up to 2^53.
-- KEYS: bucket. ARGV: units that a microsecond brings, units of a token, tokens of a full
-- bucket, how many are wanted.
-- Returns how many were taken, and in how many microseconds there is one more.
local rate, token, want = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local now, full = clock(), tonumber(ARGV[3]) * token
local level, changed = full, false
local kept = look('GET', KEYS[1])
if kept then
  local had, at, r, t = string.match(kept, '^(%d+) (%d+) (%d+) (%d+)$')
  -- What came since then came at the rate of then.
  level = had + math.max(0, now - at) * r
  changed = tonumber(r) ~= rate or tonumber(t) ~= token
  if changed then level = math.floor(level / t * token) end
  level = math.min(level, full)
end
local taken = math.min(want, math.floor(level / token))
level = level - taken * token
if level == full then
  redis.call('DEL', KEYS[1])
elseif taken > 0 or changed then
  -- A key that is gone is a full bucket.
  redis.call('SET', KEYS[1], text(level) .. ' ' .. text(now) .. ' ' .. ARGV[1] .. ' ' .. ARGV[2],
    'PX', text(math.ceil((full - level) / rate / 1000) + 1))
end
return {text(taken), taken < want and text(math.ceil((token - level) / rate)) or '0'}

-- Moves the end of leases that have not ended.
-- KEYS: lease. ARGV: lease; for each claim: member. Returns '1' or '0' for each.
local now, answer = clock(), {}
for a = 2, #ARGV do
  local ends = redis.call('ZSCORE', KEYS[1], ARGV[a])
  answer[a - 1] = '0'
  if ends and tonumber(ends) > now then
    redis.call('ZADD', KEYS[1], text(now + tonumber(ARGV[1])), ARGV[a])
    answer[a - 1] = '1'
  end
end
return table.concat(answer)

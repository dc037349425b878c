-- Hands claims back as they were; those that are lost are passed over.
-- KEYS: lease, bell. ARGV: key prefix; for each claim: tail, the lease's member, endpoint, due.
-- Returns how many were handed back.
local lease, bell, now, rung, released = KEYS[1], KEYS[2], clock(), {}, 0
for a = 2, #ARGV, 4 do
  local member = ARGV[a + 1]
  if redis.call('ZSCORE', lease, member) then
    back(ARGV[1], ARGV[a + 2], text(math.min(tonumber(ARGV[a + 3]), now)), ARGV[a])
    redis.call('ZREM', lease, member)
    rung[ARGV[a + 2]] = true
    released = released + 1
  end
end
for endpoint in pairs(rung) do ring(bell, endpoint) end
return released

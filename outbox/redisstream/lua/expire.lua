-- Ends the leases of a consumer's claims, so that the next Relay that looks takes them over.
-- KEYS: leases. ARGV: key prefix, consumer; for each claim: endpoint, 'q' or 'x', id of the entry.
-- Returns how many were its claims.
local prefix, now, expired, woken = ARGV[1], clock(), 0, {}
for a = 3, #ARGV, 3 do
  local stream = prefix .. ARGV[a + 1] .. ':' .. ARGV[a]
  local claim = pending(stream, ARGV[a + 2], ARGV[a + 2], 1)[1]
  if claim and claim[2] == ARGV[2] then
    redis.call('XCLAIM', stream, 'relay', ARGV[2], 0, ARGV[a + 2], 'TIME', 0, 'JUSTID')
    woken[ARGV[a]] = true
    expired = expired + 1
  end
end
for endpoint in pairs(woken) do
  redis.call('ZADD', KEYS[1], 'LT', text(now), endpoint)
  wake(prefix, endpoint)
end
return expired

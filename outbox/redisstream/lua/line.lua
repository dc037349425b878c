-- Appends a line to the journal.
-- KEYS: meta, journal. ARGV: outbox id, body, how many lines are kept. Returns its number and the time.
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then return redis.error_reply('EPOCH the outbox is another one than before') end
look('XLEN', KEYS[2])
local n, now = tostring(redis.call('HINCRBY', KEYS[1], 'lines', 1)), text(clock())
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], n .. '-0', 't', now, 'b', ARGV[2])
return {n, now}

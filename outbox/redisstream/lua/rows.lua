-- Reads statistics of a day at one moment. KEYS: hashes. Returns the fields and values of each.
local out = {}
for i, key in ipairs(KEYS) do out[i] = redis.call('HGETALL', key) end
return out

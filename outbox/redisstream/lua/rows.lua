-- Reads statistics of a day at one moment. KEYS: hashes of the day and its hours, took. ARGV: ids of the first and the last
-- entry that took can have of the day. Returns the fields and values of each hash, then these entries.
local out, took = {}, #KEYS
for i = 1, took - 1 do out[i] = redis.call('HGETALL', KEYS[i]) end
out[took] = redis.call('XRANGE', KEYS[took], ARGV[1], ARGV[2])
return out

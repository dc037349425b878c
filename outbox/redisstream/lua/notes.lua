-- Reads all notes at one moment.
-- KEYS: meta, notes. Returns the revision of the last write, then for each note: endpoint, "<revision>|<text>".
local out = {redis.call('HGET', KEYS[1], 'notes') or '0'}
for _, v in ipairs(redis.call('HGETALL', KEYS[2])) do out[#out + 1] = v end
return out

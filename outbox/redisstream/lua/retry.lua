-- Makes a delivery due now that waits for a retry.
-- KEYS: meta, the event. ARGV: outbox id, key prefix, order and number of the delivery, how many the event had at its
-- accept, endpoint, tail. Returns D done, R nothing to do, N not found, S and the letter of the state if it is over.
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then return redis.error_reply('EPOCH the outbox is another one than before') end
local prefix, endpoint, tail, now = ARGV[2], ARGV[6], ARGV[7], clock()
local record = delivery(KEYS[2], ARGV[3], ARGV[4], tonumber(ARGV[5]))
if record == nil then return {'N'} end
if record and string.byte(record) ~= 112 then return {'S', string.sub(record, 1, 1)} end
local due = redis.call('ZSCORE', prefix .. 'r:' .. endpoint, tail)
if not due or tonumber(due) <= now then return {'R'} end
local next, keep = orders(prefix, now)
redis.call('ZREM', prefix .. 'r:' .. endpoint, tail)
back(prefix, endpoint, next(), tail)
keep()
local begin, rest = string.match(record or '', '^(p%d+,)%d+(.*)$')
if begin then redis.call('HSET', KEYS[2], ARGV[4], begin .. text(now) .. rest) end
wake(prefix, endpoint)
return {'D'}

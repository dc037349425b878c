-- Ends a pending delivery as discarded.
-- KEYS: meta, the event. ARGV: outbox id, key prefix, order and number of the delivery, how many the event had at its
-- accept, endpoint, tail, code, type and tenant as statistics have them.
-- Returns D done, R done before, N not found, C an attempt is under way, S and the letter of the state if it is over.
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then return redis.error_reply('EPOCH the outbox is another one than before') end
local record = delivery(KEYS[2], ARGV[3], ARGV[4], tonumber(ARGV[5]))
if record == nil then return {'N'} end
local state = record and string.sub(record, 1, 1) or 'p'
if state == 'x' then return {'R'} end
if state ~= 'p' then return {'S', state} end
local bytes = drop(ARGV[2], KEYS[2], ARGV[7], ARGV[6], record, ARGV[8], ARGV[9], clock(), false)
if not bytes then return {'C'} end
redis.call('HINCRBY', KEYS[1], 'bytes', bytes)
return {'D'}

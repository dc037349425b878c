-- Takes a lock, or renews it for its owner. Returns 1 if the caller has it now.
-- KEYS: lock   ARGV: token of the owner, lease in ms
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1

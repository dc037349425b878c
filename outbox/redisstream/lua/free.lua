-- Puts entries that nobody can claim at the end of the line again.
-- KEYS: meta. ARGV: key prefix, endpoint, 'q' or 'x'. Returns how many there were.
local prefix, endpoint = ARGV[1], ARGV[2]
local stream = prefix .. ARGV[3] .. ':' .. endpoint
local lost = stranded(stream, 1000)
if #lost == 0 then return 0 end
local next, keep = orders(prefix, clock())
for _, entry in ipairs(lost) do
  back(prefix, endpoint, next(), entry[2][2])
  redis.call('XDEL', stream, entry[1])
end
keep()
wake(prefix, endpoint)
return #lost

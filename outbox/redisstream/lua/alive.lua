-- Tells of each event in a segment whether it is kept.
-- KEYS: events. ARGV: for each its order and, if the segment has one delivery that an operator made, its number or ''.
-- Returns a string with '1' for each that is kept, else '0'.
local out = {}
for i, key in ipairs(KEYS) do
  local order, n = ARGV[2 * i - 1], ARGV[2 * i]
  local kept
  if n == '' then
    kept = held('HGET', key, 'o') == order
  else
    local made = held('HGET', key, 'r' .. n)
    kept = made and string.match(made, '^%d+') == order
  end
  out[i] = kept and '1' or '0'
end
return table.concat(out)

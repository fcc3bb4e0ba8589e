-- Counts and samples of some minutes.
-- Uses: base
--
-- KEYS  1 meta
-- ARGV  1 the first minute, or "(" and the last one that was read  2 values after which it stops
-- Returns  1 when there are more minutes, and minute and [name NUL queue, value, ...] of each
local found, left = {}, tonumber(ARGV[2])
local minutes = call('ZRANGEBYSCORE', '@samples', ARGV[1], '+inf', 'LIMIT', 0, 200)
for _, minute in ipairs(minutes) do
  if left <= 0 then break end
  local values = call('HGETALL', '@sample:' .. minute)
  insert(found, {minute, values})
  left = left - 1 - #values / 2
end
return {(#found < #minutes or #minutes == 200) and 1 or 0, found}

-- Counts and samples of some minutes.
-- Uses: base
--
-- KEYS  1 meta
-- ARGV  1 the first minute, or "(" and the last one that was read  2 how many minutes at most
-- Returns  minute and [name NUL queue, value, ...] of each
local found = {}
for _, minute in ipairs(call('ZRANGEBYSCORE', '@samples', ARGV[1], '+inf', 'LIMIT', 0, ARGV[2])) do
  insert(found, {minute, call('HGETALL', '@sample:' .. minute)})
end
return found

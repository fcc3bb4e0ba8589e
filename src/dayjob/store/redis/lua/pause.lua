-- Stop or resume claims from a queue.
-- Uses: base room
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 the queue  2 SADD or SREM
-- Returns  1 when that changed something
local changed = call(ARGV[2], '@paused', ARGV[1])
if changed == 1 then
  call('HINCRBY', META, 'control', 1)
  if call('EXISTS', '@wait:p' .. ARGV[1]) == 1 then call('SADD', '@freed', 'p' .. ARGV[1]) end
end
return changed

-- Write down the depth of each queue for this minute.
-- Uses: base leads jobs
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock  2 the leader's term
-- Returns  nothing for a stale term, else 1
local now = tonumber(ARGV[1]) or clock()
local minute = digits(now - now % 60000000)
local values, waiting = {}, {}
for _, kind in ipairs({'ready', 'suspect'}) do
  for _, queue in ipairs(call('ZRANGE', P .. kind, 0, -1)) do
    waiting[queue] = (waiting[queue] or 0) + call('ZCARD', P .. kind .. ':' .. queue)
  end
end
for queue, count in pairs(waiting) do
  insert(values, 'depth:available\0' .. queue)
  insert(values, count)
end
local depths = call('HGETALL', DEPTH)
for at = 1, #depths, 2 do
  local state = sub(depths[at], 1, 1) == 's' and 'scheduled' or 'running'
  insert(values, 'depth:' .. state .. '\0' .. sub(depths[at], 2))
  insert(values, depths[at + 1])
end
if #values > 0 then
  many('HSET', '@sample:' .. minute, values)
  call('ZADD', '@samples', minute, minute)
end
return 1

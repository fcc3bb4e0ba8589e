-- What holds for whole queues.
-- LIMITS: [max_depth or false, when full, concurrency or false, rate or false, per in microseconds, closed or false].

-- LIMITS of *queue*: what was said at run time, or else in code.
local limited = {}
local function limits_of(queue)
  if limited[queue] == nil then
    local text = meta[3] and call('HGET', '@limits', queue)
    local said = text and unpacked(text) or {false, false}
    limited[queue] = said[2] or said[1]
  end
  return limited[queue]
end

-- How many jobs of *queue* wait.
local function depth_of(queue)
  return call('ZCARD', '@ready:' .. queue) + call('ZCARD', '@suspect:' .. queue) + call('ZCARD', '@blocked:' .. queue)
    + tonumber(call('HGET', DEPTH, 's' .. queue) or 0)
end

-- How many jobs of *queue* may be claimed now, and when time lets one more, if it does.
local function may_start(queue, now)
  local limits, most, at = limits_of(queue), HUGE, false
  if limits and limits[3] then most = max(0, limits[3] - tonumber(call('HGET', DEPTH, 'r' .. queue) or 0)) end
  if limits and limits[4] then
    local key = '@started:' .. queue
    call('ZREMRANGEBYSCORE', key, '-inf', digits(now - limits[5]))
    local free = max(0, limits[4] - call('ZCARD', key))
    local first = free == 0 and call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if first and first[2] then at = tonumber(first[2]) + limits[5] end
    most = min(most, free)
  end
  return most, at
end

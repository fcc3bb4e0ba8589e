-- How calls behind breakers went; breakers open and close by it, or by hand.
-- Uses: base room jobs ready gating lanes exits limits admit back
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock
--       2 reports: [key, failed, failures, within, cooldown] each, in microseconds; by hand [key, 'open' or 'closed']
--       3 what makes the failures of this call different from all others
-- Returns  [key, state, since, until or 0, failures] of each breaker that changed
local now, reports = tonumber(ARGV[1]) or clock(), unpacked(ARGV[2])
local changed = {}

local function set(key, state, until_)
  gated()
  changed[key] = true
  if state == 'closed' then
    call('HDEL', '@breaker', key)
    call('UNLINK', '@failures:' .. key)
    free({['b' .. key] = true})
  else
    call('HSET', '@breaker', key, pack({state, now, until_}))
  end
  call('HINCRBY', META, 'control', 1)
  if state ~= 'open' then return end
  local ids, queues = call('ZRANGEBYSCORE', '@token:b' .. key, -1, -1, 'LIMIT', 0, 1000), {}
  for i, record in ipairs(gather('HMGET', JOB, ids)) do
    if record then under(queues, head(record)[1], ids[i]) end
  end
  for queue, some in pairs(queues) do
    back_to_wait(take_back(queue, some, now))
  end
  call('ZREM', '@opens', 'b' .. key)
  if until_ > 0 then open_at('b' .. key, until_) end
end

for i, one in ipairs(reports) do
  local key, failed = one[1], one[2]
  local failures = '@failures:' .. key
  if failed == 'open' or failed == 'closed' then
    set(key, failed, 0)
  else
    local state = breaker_of(key, now)[1]
    if state == 'probing' then
      if failed then set(key, 'open', now + one[5]) else set(key, 'closed', 0) end
    elseif state == 'closed' and failed then
      call('ZADD', failures, digits(now), ARGV[3] .. i)
      call('ZADD', '@fails', digits(now + one[4]), key)
      call('ZREMRANGEBYSCORE', failures, '-inf', digits(now - one[4]))
      gated()
      if call('ZCARD', failures) >= one[3] then set(key, 'open', now + one[5]) end
    end
  end
end
local told = {}
for key in pairs(changed) do
  local found = breaker_of(key, now)
  insert(told, pack({key, found[1], found[2], found[3], call('ZCARD', '@failures:' .. key)}))
end
return told

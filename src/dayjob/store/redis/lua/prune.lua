-- Delete finished jobs that are past their time or beyond a bound, and what else is old.
-- Uses: base leads jobs ready gating lanes exits finished
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock  2 the leader's term  3 how many at most
--       4 bounds: [state, queue or false, how many stay, queues left out] each
--       5 of ids that may be forgotten, how many at most
-- Returns  nothing for a stale term, else how many went, and 1 when there are more ids to forget
local now = tonumber(ARGV[1]) or clock()
local limit = tonumber(ARGV[3])
local pruned = forget_finished(call('ZRANGEBYSCORE', KEEP, '-inf', digits(now), 'LIMIT', 0, limit), now, false)
for _, bound in ipairs(unpacked(ARGV[4])) do
  local state, queue, count = bound[1], bound[2], bound[3]
  local out = {}
  for _, name in ipairs(bound[4]) do out[name] = true end
  local queues = {queue}
  if not queue then
    queues = {}
    for _, name in ipairs(call('SMEMBERS', '@ends')) do
      if sub(name, 1, #state + 1) == state .. ':' then insert(queues, sub(name, #state + 2)) end
    end
  end
  for _, name in ipairs(queues) do
    local key = '@end:' .. state .. ':' .. name
    local beyond = min(call('ZCOUNT', key, '-inf', '(' .. digits(AWAY)) - count, limit - pruned)
    if beyond > 0 and not out[name] then
      local ids = call('ZRANGE', key, 0, beyond - 1)
      pruned = pruned + forget_finished(ids, now, false)
      many('ZREM', key, ids)
    end
  end
end

local forgotten = call('ZRANGEBYSCORE', GONE, '-inf', digits(now), 'LIMIT', 0, ARGV[5])
many('ZREM', GONE, forgotten)
for _, one in ipairs(call('ZRANGEBYSCORE', '@expiring', '-inf', digits(now), 'LIMIT', 0, 1000)) do
  local kind, key = string.match(one, '^([^%z]*)%z(.*)$')
  call('HDEL', '@record:' .. kind, key)
  call('ZREM', '@expiring', one)
  if call('EXISTS', '@record:' .. kind) == 0 then call('SREM', '@kinds', kind) end
end
local week = digits(now - 604800000000)
for _, minute in ipairs(call('ZRANGEBYSCORE', '@samples', '-inf', '(' .. week, 'LIMIT', 0, 1000)) do
  call('UNLINK', '@sample:' .. minute)
  call('ZREM', '@samples', minute)
end
local rows = call('HGETALL', '@worker')
for at = 1, #rows, 2 do
  local lost_at = unpacked(rows[at + 1])[6]
  if lost_at > 0 and lost_at <= now - 86400000000 then
    call('HDEL', '@worker', rows[at])
    call('HDEL', '@info', rows[at])
  end
end
return {pruned, #forgotten == tonumber(ARGV[5]) and 1 or 0}

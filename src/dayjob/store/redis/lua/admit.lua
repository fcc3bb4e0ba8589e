-- The leader's sweep over what waits at gates: admit what can be, and take back what was admitted to no use.
-- Uses: base leads room jobs ready gating lanes exits limits admit back
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock  2 the leader's term  3 how many at most
--       4 how long, in microseconds, one that passed may stand before it makes room  5 what channels begin with
-- Returns  nothing for a stale term, else how many passed, and when time opens the next gate, or empty
local now, limit = tonumber(ARGV[1]) or clock(), tonumber(ARGV[3])
if not GATED and not meta[3] and call('EXISTS', '@starts') == 0 then return {0, ''} end

-- Of queues that are paused.
for _, queue in ipairs(call('SMEMBERS', '@admitted')) do
  if is_paused(queue) then
    back_to_wait(take_back(queue, call('ZRANGE', '@admitted:' .. queue, 0, limit - 1), now))
  end
end

local passed = admit(now, limit)

-- Who is less urgent than somebody that waits at one of its gates.
for _, name in ipairs(call('SPOP', '@contested', 100)) do
  local first = call('ZRANGE', '@wait:' .. name, 0, 0, 'WITHSCORES')
  local urgent = first[2] and priority_of(tonumber(first[2]))
  if urgent then
    local waiting = call('ZCOUNT', '@line:' .. first[1], '-inf', '(' .. digits((1 - urgent) * LEVEL))
    local queues = passed_below(name, urgent, min(waiting, limit))
    for queue, some in pairs(queues) do back_to_wait(take_back(queue, some, now)) end
  end
end

-- Who has stood unclaimed while others, of other queues, wait at its gates.
local idle, shunned = {}, {}
for _, queue in ipairs(call('SMEMBERS', '@admitted')) do
  local ids = call('ZRANGEBYSCORE', '@admitted:' .. queue, '-inf', digits(now - tonumber(ARGV[4])), 'LIMIT', 0, limit)
  local some, stay = {}, {}
  for i, gating in ipairs(gatings(ids)) do
    local other = false
    for _, gate in ipairs(gating and gating[4] or {}) do
      for _, line in ipairs((other or sub(gate[1], 1, 1) == 'o') and {} or call('ZRANGE', '@wait:' .. name_of(gate), 0, 9)) do
        other = other or string.match(line, '^[^%z]*') ~= queue
      end
    end
    if other then
      insert(some, ids[i])
    else
      insert(stay, digits(now))
      insert(stay, ids[i])
    end
  end
  many('ZADD', '@admitted:' .. queue, stay)  -- looked at again after as long
  if #some > 0 then
    local jobs = take_back(queue, some, now)
    shunned[queue] = true
    for _, job in ipairs(jobs) do
      local line = line_of(queue, job[4])
      if strict(line) then shunned[line] = true end
    end
    insert(idle, jobs)
  end
end

for _, jobs in ipairs(idle) do back_to_wait(jobs) end
if next(shunned) and passed < limit then passed = passed + admit(now, limit - passed, shunned) end
local freed = {}
for _, jobs in ipairs(idle) do
  for _, job in ipairs(jobs) do
    for _, gate in ipairs(job[4][4]) do freed[name_of(gate)] = true end
  end
end
free(freed)
if passed < limit then passed = passed + admit(now, limit - passed) end

-- Keys and tokens of which the time is over.
local faded = {}
for _, name in ipairs(call('ZRANGEBYSCORE', '@fades', '-inf', digits(now), 'LIMIT', 0, limit)) do
  call('ZREM', '@fades', name)
  purge(name, gate_of(name), now)
  faded[name] = {false, 0}
end
name_gates(faded, now)
for _, hash in ipairs(call('ZRANGEBYSCORE', '@keyed', '-inf', digits(now), 'LIMIT', 0, limit)) do
  call('HDEL', '@key', hash)
  call('ZREM', '@keyed', hash)
end
local over = call('ZRANGEBYSCORE', '@taken', '-inf', digits(now), 'LIMIT', 0, limit)
many('HDEL', '@taker', over)
many('ZREM', '@taken', over)
for _, key in ipairs(call('ZRANGEBYSCORE', '@fails', '-inf', digits(now), 'LIMIT', 0, limit)) do
  if call('HEXISTS', '@breaker', key) == 0 then call('UNLINK', '@failures:' .. key) end
  call('ZREM', '@fails', key)
end
for _, queue in ipairs(call('SMEMBERS', '@starts')) do
  local limits = limits_of(queue)
  local per = limits and limits[4] and limits[5] or 0
  call('ZREMRANGEBYSCORE', '@started:' .. queue, '-inf', digits(now - per))
  if call('EXISTS', '@started:' .. queue) == 0 then call('SREM', '@starts', queue) end
end

-- What workers of an older release left behind, who know of no gates.
local some = call('HSCAN', GATING, call('HGET', META, 'swept') or '0', 'COUNT', 100)
call('HSET', META, 'swept', some[1])
local ids, ended, lost = {}, {}, {}
for at = 1, #some[2], 2 do insert(ids, some[2][at]) end
local ends = gather('HMGET', END, ids)
for i, id in ipairs(ids) do
  if call('HEXISTS', JOB, id) == 0 then
    insert(lost, id)
  elseif ends[i] then
    for _, gate in ipairs(unpacked(some[2][2 * i])[4]) do
      if call('ZSCORE', '@token:' .. name_of(gate), id) then insert(ended, id) break end
    end
  end
end
leave(ended, true, now)
leave(lost, true, now)
many('HDEL', GATING, lost)
if call('EXISTS', GATING, '@key', '@gate', '@lines', '@blocked', '@taker', '@breaker', '@opens', '@fades', '@fails') == 0 then
  call('HDEL', META, 'gated', 'swept')
  call('UNLINK', '@freed', '@contested')
end

wake(ARGV[5])
local first = call('ZRANGE', '@opens', 0, 0, 'WITHSCORES')
return {passed, first[2] or ''}

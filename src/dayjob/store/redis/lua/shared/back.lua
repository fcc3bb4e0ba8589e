-- Back to their gates: available jobs that have passed, and do not run.

-- Up to *most* of those that have passed the gate *name* and do not run, less urgent than *priority*, the least urgent first and of
-- these who came last; among its first 10,000 tokens. Of each queue.
local function passed_below(name, priority, most)
  local base, queues, found = sub(name, 1, 1) == 'c' and -1000 or RESERVED, {}, {}
  for from = 0, 9000, 1000 do
    local some = call('ZRANGEBYSCORE', '@token:' .. name, digits(base - 127), digits(base + priority - 1), 'WITHSCORES',
      'LIMIT', from, 1000)
    local ids = {}
    for at = 1, #some, 2 do insert(ids, some[at]) end
    for i, run in ipairs(gather('HMGET', RUN, ids)) do
      if not run then insert(found, {ids[i], tonumber(some[2 * i])}) end
    end
    if #ids < 1000 or #found >= most then break end
  end
  table.sort(found, function(a, b)
    if a[2] ~= b[2] then return a[2] < b[2] end
    return a[1] > b[1]
  end)
  local names = {}
  for at = 1, min(most, #found) do names[at] = found[at][1] end
  for i, record in ipairs(gather('HMGET', JOB, names)) do
    if record then under(queues, head(record)[1], names[i]) end
  end
  return queues
end

-- Available jobs of one queue that have passed are blocked again: their gates are free for others. What to `block` in the end.
local function take_back(queue, ids, now)
  local jobs, taken = {}, {}
  local dyns, known = gather('HMGET', DYN, ids), gatings(ids)
  local sides = {}
  for i, id in ipairs(ids) do
    local suspect = dyns[i] and unpacked(dyns[i])[6] or false
    local score = call('ZSCORE', key_of(queue, suspect), id)
    if score and known[i] then
      under(sides, suspect, id)
      insert(taken, id)
      insert(jobs, {id, queue, score, known[i]})
    else
      call('ZREM', '@admitted:' .. queue, id)
    end
  end
  for suspect, some in pairs(sides) do take_ready(queue, suspect, some) end
  leave(taken, false, now)
  return jobs
end

local function back_to_wait(jobs)
  block(jobs)
  line_up(jobs)
end

-- Available jobs behind open breakers are blocked again, before they are claimed; the others of *picked*.
local function without_broken(picked, now)
  local ids, stay, back = {}, {named = picked.named}, {}
  for i, one in ipairs(picked) do ids[i] = one[1] end
  for i, gating in ipairs(gatings(ids)) do
    local broken
    for _, gate in ipairs(gating and gating[4] or {}) do
      local name = name_of(gate)
      broken = broken or (sub(name, 1, 1) == 'b' and breaker_of(gate[2], now)[1] == 'open')
    end
    if broken then under(back, picked[i][3], ids[i]) else insert(stay, picked[i]) end
  end
  for queue, some in pairs(back) do
    back_to_wait(take_back(queue, some, now))
  end
  return stay
end

-- Out of wherever they wait: *jobs* are {id, h, d} of available, blocked and scheduled ones.
local function take_waiting(jobs, states)
  local due, queues, blocked = {}, {}, {}
  for i, job in ipairs(jobs) do
    if states[i] == 'scheduled' then
      insert(due, job[1])
      depth('s' .. job[2][1], -1)
    elseif states[i] == 'blocked' then
      under(blocked, job[2][1], job[1])
    else
      local name = (job[3][6] and '1' or '0') .. job[2][1]
      queues[name] = queues[name] or {}
      insert(queues[name], job[1])
    end
  end
  many('ZREM', DUE, due)
  for queue, ids in pairs(blocked) do take_blocked(queue, ids) end
  for name, ids in pairs(queues) do take_ready(sub(name, 2), sub(name, 1, 1) == '1', ids) end
end

-- Where the live job *id* stands, and its score when it is available or blocked. One that is in no list, because somebody has deleted
-- keys, is scheduled from now on.
local function standing(id, h, d)
  if call('HEXISTS', RUN, id) == 1 then return 'running' end
  if call('ZSCORE', DUE, id) then return 'scheduled' end
  local score = call('ZSCORE', key_of(h[1], d[6]), id)
  if score then return 'available', score end
  score = GATED and call('ZSCORE', '@blocked:' .. h[1], id)
  if score then return 'blocked', score end
  call('ZADD', DUE, digits(d[8]), id)
  depth('s' .. h[1], 1)
  return 'scheduled'
end

-- Waiting jobs end as cancelled; *keep* in microseconds, false for ever.
local function cancel_waiting(jobs, states, scores, reason, keep, now)
  take_waiting(jobs, states)
  local ids, queues, dyns, bodies, times = {}, {}, {}, {}, {}
  for i, job in ipairs(jobs) do
    local d = job[3]
    local entry = d[1] ~= 0 and d[1] or place_of(tonumber(scores[i] or 0))
    d[6] = false
    ids[i], queues[i], dyns[i], bodies[i], times[i] = job[1], job[2][1], pack(d), untold(entry), now
  end
  local how = {state = 'cancelled', reason = reason, keep = keep, attempts = 0, crashes = 0}
  finish(ids, queues, dyns, bodies, times, how, now)
end

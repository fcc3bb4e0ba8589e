-- Into and out of the order in which jobs are claimed.

local function key_of(queue, suspect) return P .. (suspect and 'suspect:' or 'ready:') .. queue end

-- Into a queue: *members* is score, id, score, id ...
local function make_ready(queue, suspect, members)
  many('ZADD', key_of(queue, suspect), members)
  call('SADD', P .. (suspect and 'suspect' or 'ready'), queue)
end

-- Out of a queue; a queue without jobs is forgotten.
local function take_ready(queue, suspect, ids)
  local key = key_of(queue, suspect)
  many('ZREM', key, ids)
  if call('EXISTS', key) == 0 then call('SREM', P .. (suspect and 'suspect' or 'ready'), queue) end
end

-- The first *number* out of a queue, or only the job *named*.
local function take_first(queue, suspect, number, named)
  if named then return take_ready(queue, suspect, {named}) end
  local key = key_of(queue, suspect)
  call('ZREMRANGEBYRANK', key, 0, number - 1)
  if call('EXISTS', key) == 0 then call('SREM', P .. (suspect and 'suspect' or 'ready'), queue) end
end

-- Up to *limit* due jobs become available in the order of their time; how many.
local function stage(now, limit)
  if limit <= 0 then return 0 end
  local ids = call('ZRANGEBYSCORE', DUE, '-inf', digits(now), 'LIMIT', 0, limit)
  if #ids == 0 then return 0 end
  local records, dyns = gather('HMGET', JOB, ids), gather('HMGET', DYN, ids)
  local jobs = {}
  for i, id in ipairs(ids) do
    if records[i] then
      local h = head(records[i])
      local d = dyns[i] and unpacked(dyns[i]) or fresh(h)
      insert(jobs, {id, h, d})
    end
  end
  table.sort(jobs, function(a, b)
    if a[3][8] ~= b[3][8] then return a[3][8] < b[3][8] end
    return a[3][1] < b[3][1]
  end)
  local entry = entries(#jobs) - 1
  many('ZREM', DUE, ids)
  local queues, pristine, changed = {}, {}, {}
  for i, job in ipairs(jobs) do
    local id, h, d = job[1], job[2], job[3]
    local suspect = d[6]
    local name = (suspect and '1' or '0') .. h[1]
    queues[name] = queues[name] or {}
    insert(queues[name], digits(entry + i - h[2] * LEVEL))
    insert(queues[name], id)
    depth('s' .. h[1], -1)
    if d[2] == 0 and d[3] == 0 and d[4] == 0 and d[5] == 0 and not suspect and not d[7] and d[8] == h[4] and d[9] == h[5]
      and not d[11] and not d[12] then
      insert(pristine, id)
    else
      d[1] = entry + i
      insert(changed, id)
      insert(changed, pack(d))
    end
  end
  many('HDEL', DYN, pristine)
  many('HSET', DYN, changed)
  for name, members in pairs(queues) do make_ready(sub(name, 2), sub(name, 1, 1) == '1', members) end
  return #ids
end

-- The stamp of the earliest scheduled job, or false.
local function next_due()
  local first = call('ZRANGE', DUE, 0, 0, 'WITHSCORES')
  return first[2] or false
end

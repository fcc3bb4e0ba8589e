-- What is due.

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
  local names = {}
  for i, job in ipairs(jobs) do names[i] = job[1] end
  local known = GATED and gatings(names) or {}
  many('ZREM', DUE, ids)
  local queues, pristine, changed = {}, {}, {}
  for i, job in ipairs(jobs) do
    local id, h, d = job[1], job[2], job[3]
    local suspect = d[6]
    local name = (suspect and '1' or '0') .. h[1]
    queues[name] = queues[name] or {}
    insert(queues[name], digits((d[13] or entry + i) - h[2] * LEVEL))
    insert(queues[name], id)
    depth('s' .. h[1], -1)
    if d[2] == 0 and d[3] == 0 and d[4] == 0 and d[5] == 0 and not suspect and not d[7] and d[8] == h[4] and d[9] == h[5]
      and not d[11] and not d[12] and not d[13] and not (known[i] and known[i][2]) then
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

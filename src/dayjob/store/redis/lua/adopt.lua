-- Store jobs as another store had them, with all that was kept with them.
-- Uses: base jobs ready gating lanes exits finished
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock
--       2 of each job: id, false, run_at, expires_at or 0, suspect, whether DYN has anything to say, and how many attempts
--         and log lines it has, and whether a checkpoint, and its GATING or false; of a finished one state, finished_at, keep_until or 0 in these places
--       3... for each job its record; DYN but for the entry, or COMMON and DYN or nil of a finished one; the rest of E behind
--         the entry, empty for others; its checkpoint, or empty; its attempts; its log lines
-- Returns  the positions, from 1, of those that exist; the others were stored
local now = tonumber(ARGV[1]) or clock()
local jobs, ids = unpacked(ARGV[2]), {}
for i, job in ipairs(jobs) do ids[i] = job[1] end
local records, ends = gather('HMGET', JOB, ids), gather('HMGET', END, ids)
local gone = call('EXISTS', GONE) == 1 and gather('ZMSCORE', GONE, ids)

-- Whether it is only the memory of a job that was moved away: that gives way.
local function moved(text)
  local how = ending(text)
  return how[1] == 'cancelled' and how[2] and sub(how[2], 1, 9) == 'moved to ' and find(how[2], '://', 10, true)
end

local existing, new, over, seen, at = {}, {}, {}, {}, 3
for i, job in ipairs(jobs) do
  local id = job[1]
  local back = records[i] and ends[i] and moved(ends[i])
  if seen[id] or (gone and gone[i]) or ((records[i] or ends[i]) and not back) then
    insert(existing, i)
  else
    insert(new, {job, at})
    if back then insert(over, {id, head(records[i])[1], 'cancelled'}) end
  end
  seen[id] = true
  at = at + 4 + job[7] + job[8]
end
if #new == 0 then return existing end

if #over > 0 then forget_traces(unlist(over)) end
local entry = entries(#new) - 1
local kept = {job = {}, ids = {}, dyn = {}, due = {}, expires = {}, done = {}, keep = {}, checkpoint = {}}
local queues, lists, known = {}, {}, {}
local gates, live, taken = {}, {}, {}
local function put(list, first, second)
  insert(list, first)
  insert(list, second)
end

local function adopt_finished(job, queue, number, front, rest)
  local id, state, finished_at, until_ = job[1], job[2], job[3], job[4]
  put(kept.done, id, front .. '\148' .. pack(number) .. rest)
  local name = state .. ':' .. queue
  lists[name] = lists[name] or {}
  put(lists[name], digits(finished_at), id)
  if until_ > 0 then put(kept.keep, digits(until_), id) end
end

local function adopt_waiting(job, h, number, rest)
  local id, run_at, expires_at, suspect = job[1], job[3], job[4], job[5]
  local later, gating = run_at > now, job[10]
  if later or job[6] or (gating and gating[2]) then put(kept.dyn, id, '\156' .. pack(number) .. rest) end
  if expires_at > 0 then put(kept.expires, digits(expires_at), id) end
  if later then
    depth('s' .. h[1], 1)
    return put(kept.due, digits(run_at), id)
  end
  local name = (suspect and '1' or '0') .. h[1]
  queues[name] = queues[name] or {}
  put(queues[name], digits(number - h[2] * LEVEL), id)
  under(known, name, job[10] or false)
end

local function push(key, from, to)
  for first = from, to, 4000 do call('RPUSH', key, unpack(ARGV, first, min(first + 3999, to))) end
end

for n, one in ipairs(new) do
  local job, first = one[1], one[2]
  local id, h = job[1], head(ARGV[first])
  put(kept.job, id, ARGV[first])
  put(kept.ids, 0, id)
  local gating = job[10]
  if gating and not job[2] then
    if gating[1] and (taken[gating[1][1]] or holder_of(gating[1][1], now)) then gating[1] = false end
    if gating[1] then
      taken[gating[1][1]] = true
      take_key(id, gating[1], now)
    end
    insert(live, gating)
  end
  if gating then put(gates, id, pack(gating)) end
  if job[2] then
    adopt_finished(job, h[1], entry + n, ARGV[first + 1], ARGV[first + 2])
  else
    adopt_waiting(job, h, entry + n, ARGV[first + 1])
  end
  if job[9] then put(kept.checkpoint, id, ARGV[first + 3]) end
  push('@try:' .. id, first + 4, first + 3 + job[7])
  push('@log:' .. id, first + 4 + job[7], first + 3 + job[7] + job[8])
end
if #gates > 0 then gated() end
many('HSET', GATING, gates)
arrive(live, true, now)
many('HSET', JOB, kept.job)
many('ZADD', IDS, kept.ids)
many('HSET', DYN, kept.dyn)
many('HSET', END, kept.done)
many('ZADD', DUE, kept.due)
many('ZADD', EXPIRES, kept.expires)
many('ZADD', KEEP, kept.keep)
many('HSET', '@checkpoint', kept.checkpoint)
for name, members in pairs(queues) do
  make_ready(sub(name, 2), sub(name, 1, 1) == '1', members, false, known[name])
end
for name, members in pairs(lists) do
  many('ZADD', '@end:' .. name, members)
  call('SADD', '@ends', name)
end
return existing

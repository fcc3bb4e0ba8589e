-- Store jobs that wait for nothing but their time and turn, and wake whoever sleeps.
-- Uses: base jobs ready
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock
--       2 what channels begin with
--       3 "1": ids that are gone count, too
--       4 shapes: [queue, priority, delay or false, run_at or false, expires after or false, task] each, in microseconds
--       5 which shape each job has, empty when all have the first
--       6... the ids, then for each job the client's part of it
-- Returns  the positions, from 1, of those that exist; the others were stored. Nothing where queues have limits: see `accept`
if meta[3] then return false end
local now = tonumber(ARGV[1]) or clock()
local shapes, which = unpacked(ARGV[4]), ARGV[5] ~= '' and unpacked(ARGV[5])
local n = (#ARGV - 5) / 2
local ids = {unpack(ARGV, 6, 5 + n)}
local known = gather('HMGET', JOB, ids)
local gone = ARGV[3] == '1' and call('EXISTS', GONE) == 1 and gather('ZMSCORE', GONE, ids)
local existing, new, seen = {}, {}, {}
for i = 1, n do
  local id = ids[i]
  if known[i] or (gone and gone[i]) or seen[id] then insert(existing, i) else insert(new, i) end
  seen[id] = true
end
if #new == 0 then return existing end

local entry = entries(#new)
local made, jobs, dyns, index, due, expires = {}, {}, {}, {}, {}, {}
for at, i in ipairs(new) do
  local name = which and which[i] or 1
  local shape = made[name]
  if not shape then
    local s = shapes[name]
    local run_at = s[4] or (s[3] and now + s[3]) or now
    if run_at < now and not s[4] then run_at = now end
    local over = s[5] and now + s[5] or 0
    shape = {
      head = pack({s[1], s[2], now, run_at, over, s[6], false}), queue = s[1], later = run_at > now, run_at = run_at, over = over,
      base = entry - 1 - s[2] * LEVEL, members = {}, count = 0,
    }
    made[name] = shape
  end
  local id = ids[i]
  jobs[2 * at - 1], jobs[2 * at] = id, shape.head .. ARGV[5 + n + i]
  index[2 * at - 1], index[2 * at] = 0, id
  shape.count = shape.count + 1
  if shape.later then
    insert(due, digits(shape.run_at))
    insert(due, id)
    insert(dyns, id)
    insert(dyns, pack({entry - 1 + at, 0, 0, 0, 0, false, false, shape.run_at, shape.over, false, false, false}))
  else
    shape.members[2 * shape.count - 1], shape.members[2 * shape.count] = shape.base + at, id
  end
  if shape.over > 0 then
    insert(expires, digits(shape.over))
    insert(expires, id)
  end
end
many('HSET', JOB, jobs)
many('ZADD', IDS, index)
many('HSET', DYN, dyns)
many('ZADD', DUE, due)
many('ZADD', EXPIRES, expires)
for _, shape in pairs(made) do
  if shape.later then depth('s' .. shape.queue, shape.count) else put_ready(shape.queue, false, shape.members) end
end
local told = {}
for _, shape in pairs(made) do
  if not told[shape.queue] and shape.run_at - now < 2000000 then
    told[shape.queue] = true
    redis.pcall('PUBLISH', ARGV[2] .. 'wake', shape.queue)  -- who may not wake anybody may store jobs all the same
  end
end
return existing

-- Store jobs of which some have keys, lanes or gates, or whose queues have limits; wake whoever sleeps.
-- Uses: base jobs ready gating lanes exits cancel limits
-- Writes.
--
-- KEYS  1 meta
-- ARGV  as of `enqueue`; a shape may have one value more, its GATING
-- Returns  a number or a list for each row that was not stored as it is: the position, from 1, of one that exists; [position,
--          'existing', 'replaced', 'extended', 'exists', 'full' or 'closed', the holder's id or depth, limit]
call('EXISTS', GATING, '@limits', '@line:never')  -- first what not every user may
local now = tonumber(ARGV[1]) or clock()
local shapes, which = unpacked(ARGV[4]), ARGV[5] ~= '' and unpacked(ARGV[5])
local n = (#ARGV - 5) / 2
local ids = {unpack(ARGV, 6, 5 + n)}
local stored = gather('HMGET', JOB, ids)
local gone = ARGV[3] == '1' and call('EXISTS', GONE) == 1 and gather('ZMSCORE', GONE, ids)
local told, seen, pending, woken = {}, {}, {}, {}
local waiting, before = {}, {}  -- what is pending: the rows that hold keys, how many of each queue
local later = {}  -- of a queue: its scheduled jobs, if they were read

for _, shape in ipairs(shapes) do
  shape.run_at = shape[4] or (shape[3] and now + shape[3]) or now
  shape.over = shape[5] and now + shape[5] or 0
  local h = {shape[1], shape[2], now, shape.run_at, shape.over, shape[6]}
  if not shape[7] then h[7] = false end
  shape.head = pack(h)
end

-- Put *id* among those that wait at once, or are scheduled; `d` is its DYN, of which it is told what is kept. It is *held* until its
-- queue is opened.
local function place(id, shape, number, d, gating, held)
  local score = digits(number - shape[2] * LEVEL)
  if d[8] > now then
    call('ZADD', DUE, digits(d[8]), id)
    depth('s' .. shape[1], 1)
    if held then call('SADD', '@later:' .. shape[1], id) end
  elseif held then
    hold(shape[1], {{id, shape[1], score}})
  else
    make_ready(shape[1], d[6], {score, id}, false, {gating or false})
  end
end

local function store()
  if #pending == 0 then return end
  local entry = entries(#pending) - 1
  local jobs, index, gates, expires, found = {}, {}, {}, {}, {}
  local batches = {}
  for at, i in ipairs(pending) do
    local shape, id = shapes[which and which[i] or 1], ids[i]
    local gating = shape[7]
    jobs[2 * at - 1], jobs[2 * at] = id, shape.head .. ARGV[5 + n + i]
    index[2 * at - 1], index[2 * at] = 0, id
    found[at] = gating or false
    if gating then
      insert(gates, id)
      insert(gates, pack(gating))
      if gating[1] then take_key(id, gating[1], now) end
    end
    if shape.over > 0 then
      insert(expires, digits(shape.over))
      insert(expires, id)
    end
    batches[shape] = batches[shape] or {}
    insert(batches[shape], at)
  end
  many('HSET', JOB, jobs)
  many('ZADD', IDS, index)
  many('HSET', GATING, gates)
  many('ZADD', EXPIRES, expires)
  if #gates > 0 then
    gated()
    arrive(found, true, now)
  end
  local dyns, due = {}, {}
  local ready, known = {}, {}
  local held = {}
  for at, i in ipairs(pending) do
    local shape, id, number = shapes[which and which[i] or 1], ids[i], entry + at
    local queue, gating = shape[1], shape[7]
    local limits = limits_of(queue)
    local later = shape.run_at > now
    if later or (gating and gating[2]) then
      insert(dyns, id)
      insert(dyns, pack({number, 0, 0, 0, 0, false, false, shape.run_at, shape.over, false, false, false}))
    end
    if later then
      insert(due, digits(shape.run_at))
      insert(due, id)
      depth('s' .. queue, 1)
      if limits and limits[6] == 'hold' then
        gated()
        call('SADD', '@later:' .. queue, id)
      end
    elseif limits and limits[6] == 'hold' then
      local score = digits(number - shape[2] * LEVEL)
      under(held, queue, {id, queue, score})
    else
      under(ready, queue, digits(number - shape[2] * LEVEL), id)
      under(known, queue, gating or false)
    end
    if shape.run_at - now < 2000000 then woken[queue] = true end
  end
  many('HSET', DYN, dyns)
  many('ZADD', DUE, due)
  if #due > 0 then later = {} end
  if next(held) then gated() end
  for queue, some in pairs(held) do hold(queue, some) end
  for queue, members in pairs(ready) do make_ready(queue, false, members, false, known[queue]) end
  pending, waiting, before = {}, {}, {}
end

-- The holder *id*, if it waits, as the new row *i* has it, or only its time. What was done.
local function put_off(id, i, shape)
  local text = call('HGET', JOB, id)
  if not text or call('HEXISTS', END, id) == 1 then return 'existing' end
  local h, dyn = head(text), call('HGET', DYN, id)
  local d = dyn and unpacked(dyn) or fresh(h)
  local state, score = standing(id, h, d)
  if state == 'running' then return 'existing' end
  local unique, all = shape[7][1], shape[7][1][5] == 'replace'
  local run_at = shape.run_at
  if unique[6] then run_at = min(run_at, h[3] + floor(unique[6] * 1000000)) end
  local held = GATED and call('ZSCORE', '@hold:' .. h[1], id)
  local own = gatings({id})[1]
  local anew, changed = own, false
  if all then anew, changed = with_gates(own, shape[7]) end
  local kept = kept_place(own, anew, score, d)
  take_waiting({{id, h, d}}, {state})
  if changed then
    regate({{id, anew}}, now)
  else
    leave({id}, false, now)
    if all then say(anew, now) end
  end
  later = {}
  local number = entries(1)
  d[1], d[8], d[13] = number, max(run_at, now), kept
  if all then
    h[2], d[9] = shape[2], shape.over
    call('HSET', JOB, id, pack(h) .. ARGV[5 + n + i])
    call('ZREM', EXPIRES, id)
    if d[9] > 0 then call('ZADD', EXPIRES, digits(d[9]), id) end
  end
  call('HSET', DYN, id, pack(d))
  place(id, {h[1], h[2]}, kept or number, d, anew, held)
  if d[8] - now < 2000000 then woken[h[1]] = true end
  return all and 'replaced' or 'extended'
end

-- Whether one job goes after another: {id, level, when it was stored, place or entry} each. The oldest of the lowest priority goes first.
local function outlasts(a, b)
  if a[2] ~= b[2] then return a[2] < b[2] end
  if a[3] ~= b[3] then return a[3] > b[3] end
  return a[4] > b[4]
end

-- Of the scheduled jobs of *queue* among the next 1,000 the last to go comes first, as for `outlasts`. They are listed by time
-- alone, so they are read once, and again when some may have come.
local function scheduled_of(queue)
  local found, left, from = later[queue], tonumber(call('HGET', DEPTH, 's' .. queue) or 0), 0
  if found then return found end
  found = {}
  while left > 0 and from < 1000 do
    local ids = call('ZRANGE', DUE, from, from + 99)
    local dyns = gather('HMGET', DYN, ids)
    for i, text in ipairs(gather('HMGET', JOB, ids)) do
      local h = text and head(text)
      if h and h[1] == queue then
        insert(found, {ids[i], -h[2], h[3], dyns[i] and unpacked(dyns[i])[1] or 0})
        left = left - 1
      end
    end
    if #ids < 100 then break end
    from = from + 100
  end
  table.sort(found, outlasts)
  later[queue] = found
  return found
end

-- Room for one more in a queue that is full: the oldest of the lowest priority goes, wherever it waits. Whether there was one.
local function shed(queue)
  local last
  for _, key in ipairs({'@ready:' .. queue, '@suspect:' .. queue, '@blocked:' .. queue}) do
    local found = call('ZREVRANGE', key, 0, 0, 'WITHSCORES')
    local level = found[2] and floor(tonumber(found[2]) / LEVEL)
    if level then
      local first = call('ZRANGEBYSCORE', key, digits(level * LEVEL), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
      local text = call('HGET', JOB, first[1])
      local one = {first[1], level, text and head(text)[3] or 0, place_of(tonumber(first[2]))}
      if not last or outlasts(last, one) then last = one end
    end
  end
  local scheduled = scheduled_of(queue)
  local late = scheduled[#scheduled]
  if late and (not last or outlasts(last, late)) then
    last = late
    scheduled[#scheduled] = nil
  end
  if not last then return false end
  local id = last[1]
  local h, dyn = head(call('HGET', JOB, id)), call('HGET', DYN, id)
  local d = dyn and unpacked(dyn) or fresh(h)
  local state, score = standing(id, h, d)
  take_waiting({{id, h, d}}, {state})
  local number = d[1] ~= 0 and d[1] or place_of(tonumber(score or 0))
  d[6] = false
  finish({id}, {queue}, {pack(d)}, {untold(number)}, {now}, {
    state = 'dead', reason = 'shed', keep = false, attempts = 0, crashes = 0,
  }, now)
  add_tally(now, queue, 'shed', 1)
  return true
end

-- Whether there is no room for row *i* in its queue; what is told of it then.
local function refused(i, queue)
  local limits = limits_of(queue)
  if not limits then return end
  if limits[6] == 'refuse' then return {i, 'closed'} end
  local most = limits[1]
  local found = most and depth_of(queue) + (before[queue] or 0)
  if not most or found < most then return end
  if limits[2] == 'drop_oldest' then
    store()
    if shed(queue) then return end  -- one for each, also where a lower limit leaves too many: no call sheds thousands
  end
  return {i, 'full', found, most}
end

for i = 1, n do
  local id, shape = ids[i], shapes[which and which[i] or 1]
  local unique, queue = shape[7] and shape[7][1], shape[1]
  if stored[i] or (gone and gone[i]) or seen[id] then
    insert(told, i)
  else
    local holder = unique and (waiting[unique[1]] or holder_of(unique[1], now))
    if holder then
      local how = unique[5]
      if how == 'raise' then
        insert(told, {i, 'exists', holder})
      elseif how == 'replace' or how == 'extend' then
        store()  -- it comes behind those before it
        insert(told, {i, put_off(holder, i, shape), holder})
      else
        insert(told, {i, 'existing', holder})
      end
    else
      local no = refused(i, queue)
      if no then
        insert(told, no)
      else
        insert(pending, i)
        before[queue] = (before[queue] or 0) + 1
        if unique then waiting[unique[1]] = id end
        seen[id] = true
      end
    end
  end
end
store()
for queue in pairs(woken) do redis.pcall('PUBLISH', ARGV[2] .. 'wake', queue) end
return told

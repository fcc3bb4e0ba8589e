-- Cancel, retry, delete or edit jobs whose state fits.
-- Uses: base room jobs ready gating lanes exits cancel finished
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock
--       2 cancel, retry, delete or edit
--       3 cancel: [reason or false, keep or false]; edit: [run_at or false, priority or false, queue or false, their entry or false,
--         GATING or false]
--       4 ids  5 states that fit  6 the queue they must be in, or empty
--       7... edit of the payload: the client's part of each job, anew
-- Returns  the ids that were touched
local now = tonumber(ARGV[1]) or clock()
local verb, how, ids, queue = ARGV[2], unpacked(ARGV[3]), unpacked(ARGV[4]), ARGV[6]
local fits = {}
for _, state in ipairs(unpacked(ARGV[5])) do fits[state] = true end
local records, dyns, ends = gather('HMGET', JOB, ids), gather('HMGET', DYN, ids), gather('HMGET', END, ids)
local known, taken = gatings(ids), {}  -- a key is taken anew by the first
local touched, live, states, scores, over, at_of, seen = {}, {}, {}, {}, {}, {}, {}
for i, id in ipairs(ids) do
  if records[i] and not seen[id] then
    seen[id] = true
    local h = head(records[i])
    local d = dyns[i] and unpacked(dyns[i]) or fresh(h)
    local state, score, kept
    if ends[i] then state = ending(ends[i])[1] else state, score = standing(id, h, d) end
    local unique = known[i] and known[i][1]
    if ends[i] and verb == 'retry' and unique then
      local holder = taken[unique[1]] or holder_of(unique[1], now)
      kept = holder and holder ~= id
    end
    local stale = verb == 'edit' and how[4] and (d[1] ~= 0 and d[1] or place_of(tonumber(score or 0))) ~= how[4]
    if fits[state] and (queue == '' or h[1] == queue) and not (verb == 'cancel' and d[10] and not ends[i])
      and not kept and not stale then
      insert(touched, id)
      if ends[i] then
        if unique then taken[unique[1]] = id end
        insert(over, {id, h, i, state})
      else
        insert(live, {id, h, d})
        states[#live], scores[#live], at_of[#live] = state, score or false, i
      end
    end
  end
end

-- Jobs become available behind those that wait: {id, queue, suspect, priority, their place if they keep one} each; their entries.
local function to_the_end(jobs)
  if #jobs == 0 then return 0 end
  local entry = entries(#jobs)
  for i, job in ipairs(jobs) do
    make_ready(job[2], job[3], {digits((job[5] or entry - 1 + i) - job[4] * LEVEL), job[1]})
  end
  return entry
end

local function cancel()
  local waiting, kinds, places = {}, {}, {}
  for i, job in ipairs(live) do
    if states[i] == 'running' then
      local _, _, batch = running(call('HGET', RUN, job[1]))
      job[3][10], job[3][11] = true, how[1]
      call('HSET', DYN, job[1], pack(job[3]))
      call('HSET', '@cancelling', job[1], batch.worker)
      call('HINCRBY', META, 'control', 1)
    else
      insert(waiting, job)
      kinds[#waiting], places[#waiting] = states[i], scores[i]
    end
  end
  if #waiting > 0 then cancel_waiting(waiting, kinds, places, how[1], how[2], now) end
end

local function retry()
  local back = {}
  for i, job in ipairs(over) do
    local gating = known[job[3]]
    if gating and gating[1] then take_key(job[1], gating[1], now) end
    back[i] = gating
  end
  arrive(back, false, now)
  take_waiting(live, states)
  local jobs, finished, values = {}, {}, {}
  for i, job in ipairs(live) do jobs[i] = {job[1], job[2][1], job[3][6], job[2][2], job[3][13]} end
  for _, job in ipairs(over) do
    insert(jobs, {job[1], job[2][1], false, job[2][2]})
    insert(finished, {job[1], job[2][1], job[4]})
  end
  local entry = to_the_end(jobs) - 1
  for i, job in ipairs(live) do
    job[3][1], job[3][8] = entry + i, now
    insert(values, job[1])
    insert(values, pack(job[3]))
  end
  for i, job in ipairs(over) do
    local _, d = ending(ends[job[3]])
    insert(values, job[1])
    insert(values, pack({entry + #live + i, 0, 0, (d and d[4] or 0) + 1, 0, false, false, now, 0, false, false, false}))
  end
  many('HSET', DYN, values)
  if #finished > 0 then many('HDEL', '@checkpoint', unlist(finished)) end
end

local function delete()
  local gone, untils, done = {}, {}, {}
  take_waiting(live, states)
  for i, job in ipairs(live) do
    gone[i] = job[1]
    insert(untils, digits(now + HOUR))
    insert(untils, job[1])
  end
  many('ZREM', EXPIRES, gone)
  leave(gone, true, now)
  erase(gone, untils)
  for i, job in ipairs(over) do done[i] = job[1] end
  forget_finished(done, now, true)
end

-- What an edit makes of the GATING of the live jobs: theirs from now on, and for whom it is another. Who gets nothing else stays as
-- it is, and is no longer among them.
local function gate_anew()
  local news, changed, left = {}, {}, 0
  local other = how[1] or how[2] or how[3] or ARGV[7]
  for i, job in ipairs(live) do
    local anew, another = known[at_of[i]], false
    if how[5] then anew, another = with_gates(anew, how[5]) end
    if another or other then
      left = left + 1
      live[left], states[left], scores[left], at_of[left] = job, states[i], scores[i], at_of[i]
      news[left], changed[left] = anew, another
    end
  end
  for i = #live, left + 1, -1 do live[i], states[i] = nil, nil end
  return news, changed
end

local function edit()
  local news, changed = gate_anew()
  if #live == 0 then return end
  local names, held, others = {}, {}, {}
  for i, job in ipairs(live) do
    if changed[i] then insert(others, {job[1], news[i]}) else insert(names, job[1]) end
    if how[3] and how[3] ~= job[2][1] then  -- to that one it is not new
      call('SREM', '@later:' .. job[2][1], job[1])
    else
      held[i] = call('ZSCORE', '@hold:' .. job[2][1], job[1])
    end
  end
  take_waiting(live, states)
  leave(names, false, now)
  regate(others, now)
  local entry = entries(#live) - 1
  for i, job in ipairs(live) do
    local id, h, d, record = job[1], job[2], job[3], records[at_of[i]]
    local moved = how[1] or how[2] or how[3] or changed[i]
    local kept = kept_place(known[at_of[i]], news[i], scores[i], d)
    local at = unpack_one(record)
    local rest = ARGV[6 + at_of[i]] or sub(record, at + 1)
    h[1], h[2], h[7] = how[3] or h[1], how[2] or h[2], nil
    d[1], d[13] = entry + i, kept
    local state = states[i]
    if how[1] then
      d[8] = max(how[1], now)
      state = d[8] > now and 'scheduled' or 'available'
    end
    call('HSET', JOB, id, pack(h) .. rest)
    call('HSET', DYN, id, pack(d))
    local score = digits((kept or d[1]) - h[2] * LEVEL)
    if state == 'scheduled' then
      call('ZADD', DUE, digits(d[8]), id)
      depth('s' .. h[1], 1)
      if held[i] then call('SADD', '@later:' .. h[1], id) end
    elseif held[i] then
      hold(h[1], {{id, h[1], moved and score or held[i]}})
    else
      local stays = not moved and scores[i]
      make_ready(h[1], d[6], {stays or score, id}, stays)
    end
  end
end

local verbs = {cancel = cancel, retry = retry, delete = delete, edit = edit}
verbs[verb]()
return touched

-- How jobs leave a claim: to their end, or back to wait.

-- The parts of a `run` entry: its entry and score as text, and what it shares with its batch.
local batches = {}
local function running(text)
  local entry, score, rest = string.match(text, '^(%d+) (%-?%d+) (.*)$')
  local batch = batches[rest]
  if not batch then
    local no, at, worker, queue = string.match(rest, '^(%d+) (%d+) ([^%z]*)%z(.*)$')
    batch = {no = no, at = at, worker = worker, queue = queue}
    batches[rest] = batch
  end
  return entry, score, batch
end

local function forget_traces(ids)
  local keys = {}
  for _, id in ipairs(ids) do
    insert(keys, '@try:' .. id)
    insert(keys, '@log:' .. id)
  end
  for at = 1, #keys, 4000 do call('UNLINK', unpack(keys, at, min(at + 3999, #keys))) end
  many('HDEL', '@checkpoint', ids)
end

-- Jobs go for good; their ids stay findable until *untils* (score, id, ...).
local function erase(ids, untils)
  many('HDEL', JOB, ids)
  many('HDEL', DYN, ids)
  if GATED then many('HDEL', GATING, ids) end
  many('ZREM', IDS, ids)
  forget_traces(ids)
  many('ZADD', GONE, untils)
end

-- Live jobs end: *ids*, and for each its queue, DYN (or false), E and when it finished. *how* is state, reason, worker's
-- name, keep or false, attempts and crashes to add, all common to them.
local function finish(ids, queues, dyns, bodies, times, how, now)
  local count = #ids
  if count == 0 then return end
  if GATED then leave(ids, true, now) end
  if call('EXISTS', EXPIRES) == 1 then many('ZREM', EXPIRES, ids) end
  if how.keep == 0 then
    local untils, over = {}, digits(now + HOUR)
    for i = 1, count do untils[2 * i - 1], untils[2 * i] = over, ids[i] end
    return erase(ids, untils)
  end
  local ends, groups, sizes = {}, {}, {}
  local until_ = how.keep and now + how.keep or 0
  local common = pack({how.state, how.reason or false, how.worker or false, now, until_, how.attempts, how.crashes})
  local away = how.state == 'cancelled' and how.reason and sub(how.reason, 1, 9) == 'moved to '
    and find(how.reason, '://', 10, true)
  for i = 1, count do
    local id, queue = ids[i], queues[i]
    ends[2 * i - 1], ends[2 * i] = id, common .. (dyns and dyns[i] or NIL) .. bodies[i]
    local group = groups[queue]
    if not group then
      group = {}
      groups[queue], sizes[queue] = group, 0
    end
    local size = sizes[queue]
    group[size + 1], group[size + 2] = away and digits(tonumber(times[i]) + AWAY) or times[i], id
    sizes[queue] = size + 2
  end
  if some_dyns() then many('HDEL', DYN, ids) end
  many('HSET', END, ends)
  if how.keep then
    local keeps, over = {}, digits(until_)
    for i = 1, count do keeps[2 * i - 1], keeps[2 * i] = over, ids[i] end
    many('ZADD', KEEP, keeps)
  end
  for queue, members in pairs(groups) do
    local name = how.state .. ':' .. queue
    many('ZADD', '@end:' .. name, members)
    call('SADD', '@ends', name)
  end
end

-- Claims end: *ids* run no more, *batch_of* says in which batches they were.
local function unclaim(ids, batch_of)
  if #ids == 0 then return end
  local left, queues = {}, {}
  for i = 1, #ids do
    local batch = batch_of[i]
    left[batch] = (left[batch] or 0) + 1
  end
  many('HDEL', RUN, ids)
  if call('EXISTS', '@cancelling') == 1 then many('HDEL', '@cancelling', ids) end
  for batch, count in pairs(left) do
    depth('r' .. batch.queue, -count)
    if call('HINCRBY', '@left:' .. batch.worker, batch.no, -count) <= 0 then
      call('HDEL', '@left:' .. batch.worker, batch.no)
      call('HDEL', '@held:' .. batch.worker, batch.no)
    end
  end
end

-- An attempt is kept with its job; the first 10 and the newest 90 stay, how many went is counted.
local function add_attempt(id, queue, attempt, now)
  local key = '@try:' .. id
  local over = call('RPUSH', key, attempt) - 100
  if over <= 0 then return end
  for at = 10, 9 + over do call('LSET', key, at, '\0') end
  call('LREM', key, over, '\0')
  add_tally(now, queue, 'trimmed', over)
end

local HURTS = {crashed = true, lost = true}

-- The client's part of an exit that no client tells of: [entry, 0, 0, nil].
local function untold(entry) return '\148' .. pack(tonumber(entry)) .. '\0\0\192' end

-- Claims end in any way but success. Each is a table: id, entry, score, batch, d (its DYN), h (its HEAD), outcome, attempts,
-- crashes, state, started (true or false), finished_at, delay, reason, keep, E (the client's part: entry, started_at, finished_at, error).
-- Fills in `to` (the state it goes to), `why`, and `crashed` (how often by now).
local function leave_claims(exits, worker, now)
  local ids, batch_of, ended, back = {}, {}, {}, {}
  local dying = {}
  for i, x in ipairs(exits) do
    ids[i], batch_of[i] = x.id, x.batch
    local d = x.d
    x.crashed = d[3] + x.crashes
    if d[10] then
      x.to, x.keep = 'cancelled', x.keep or 86400000000
      x.why = (x.reason and x.outcome == 'cancelled') and x.reason or d[11]
    elseif x.outcome == 'crashed' and x.crashed >= 3 then
      x.to, x.why = 'dead', 'crashed'
    else
      x.to, x.why = x.state, x.reason
    end
    if x.started or x.outcome ~= 'released' then
      local number = pack({d[2] + 1, d[4], x.outcome, worker or false, now, x.reason or false})
      add_attempt(x.id, x.h[1], number .. x.E, now)
    end
    if x.to == 'cancelled' or x.to == 'dead' then insert(ended, x) else insert(back, x) end
  end
  unclaim(ids, batch_of)
  for _, x in ipairs(ended) do
    local d = x.d
    d[6], d[10] = false, false
    finish({x.id}, {x.h[1]}, {pack(d)}, {x.E}, {x.finished_at}, {
      state = x.to, reason = x.why, worker = worker, keep = x.keep or false, attempts = x.attempts, crashes = x.crashes,
    }, now)
  end
  if #back == 0 then return end
  local entry = entries(#back)
  local dyns, due, expires, queues, named = {}, {}, {}, {}, {}
  for i, x in ipairs(back) do named[i] = x.id end
  local known = GATED and leave(named, false, now) or {}
  for i, x in ipairs(back) do
    local d, h = x.d, x.h
    local hurt = HURTS[x.outcome] or false
    d[1] = entry - 1 + i
    d[2], d[3] = d[2] + x.attempts, x.crashed
    d[6] = hurt or (d[6] and (x.outcome == 'released' or x.outcome == 'parked'))
    d[5] = x.outcome == 'parked' and d[5] + 1 or 0
    d[10], d[11] = false, x.outcome == 'parked' and x.why or false
    if hurt or x.started then d[9] = 0 end
    if d[9] ~= 0 then
      insert(expires, digits(d[9]))
      insert(expires, x.id)
    end
    if x.to == 'scheduled' then
      d[8], d[13] = now + x.delay, known[i] and kept_place(known[i], known[i], x.score, d) or nil
      insert(due, digits(d[8]))
      insert(due, x.id)
      depth('s' .. h[1], 1)
    else
      local name = (d[6] and '1' or '0') .. h[1]
      queues[name] = queues[name] or {}
      insert(queues[name], x.score)
      insert(queues[name], x.id)
    end
    insert(dyns, x.id)
    insert(dyns, pack(d))
  end
  many('HSET', DYN, dyns)
  many('ZADD', DUE, due)
  many('ZADD', EXPIRES, expires)
  for name, members in pairs(queues) do make_ready(sub(name, 2), sub(name, 1, 1) == '1', members, true) end
end

-- The exits of *ids* (which run) with one outcome that nobody living tells of.
local function exits_of(ids, runs, outcome, crashes, how, now)
  local records, dyns = gather('HMGET', JOB, ids), gather('HMGET', DYN, ids)
  local exits = {}
  for i, id in ipairs(ids) do
    local entry, score, batch = running(runs[i])
    local h = head(records[i])
    exits[i] = {
      id = id, entry = entry, score = score, batch = batch, h = h, d = dyns[i] and unpacked(dyns[i]) or fresh(h),
      outcome = outcome, attempts = 0, crashes = crashes, state = 'available', started = false, reason = how, delay = 0,
      finished_at = now, keep = false, E = untold(entry),
    }
  end
  return exits
end

-- What still runs of the batch *no* of *worker*: ids, and what RUN says of each.
local function still_runs(worker, no)
  local held = call('HGET', '@held:' .. worker, no)
  local ids, runs = {}, {}
  if held then
    local all = unpacked(held)
    local texts = gather('HMGET', RUN, all)
    local there = gather('HMGET', JOB, all)
    for i, id in ipairs(all) do
      if texts[i] and there[i] then
        local _, _, batch = running(texts[i])
        if batch.worker == worker and batch.no == no then
          insert(ids, id)
          insert(runs, texts[i])
        end
      end
    end
  end
  return ids, runs
end

-- End the batch *no* of *worker*: what still runs of it leaves with *outcome*; what became of each, for `Rescued`.
local function take_batch(worker, name, no, outcome, crashes, how, now)
  local ids, runs = still_runs(worker, no)
  local taken = {}
  if #ids > 0 then
    local exits = exits_of(ids, runs, outcome, crashes, how, now)
    leave_claims(exits, name, now)
    for i, x in ipairs(exits) do
      taken[i] = {x.id, tonumber(x.entry), x.h[6], x.h[1], x.to, x.crashed, x.why or false}
    end
  end
  call('HDEL', '@lease:' .. worker, no)
  call('HDEL', '@held:' .. worker, no)
  call('HDEL', '@left:' .. worker, no)
  return taken
end

-- A worker is over, and up to *most* of its jobs (or one batch) go back. What `Gone` tells: [worker's id, last beat, jobs]; and
-- whether there is more: until then one that was given up is marked with a time below 0, and an orderly one stays as it was.
local function give_up(id, how, now, orderly, most)
  local known = unpacked(call('HGET', '@worker', id))
  local numbers, solo = call('HKEYS', '@lease:' .. id), known[2]
  if solo and not orderly then  -- see `exits.given_up`
    local held = 0
    for _, no in ipairs(numbers) do held = held + #still_runs(id, no) end
    solo = held == 1
  end
  local outcome = orderly and 'released' or solo and 'crashed' or 'lost'
  local jobs, more = {}, false
  for _, no in ipairs(numbers) do
    more = #jobs >= most
    if more then break end
    for _, job in ipairs(take_batch(id, known[1], no, outcome, outcome == 'crashed' and 1 or 0, how, now)) do
      insert(jobs, job)
    end
  end
  if orderly and not more then
    call('HDEL', '@worker', id)
    call('HDEL', '@info', id)
  elseif not orderly then
    known[6] = more and -now or now
    call('HSET', '@worker', id, pack(known))
  end
  if call('HGET', META, 'leader') == id then call('HDEL', META, 'leader') end
  return {id, known[4], jobs}, more
end

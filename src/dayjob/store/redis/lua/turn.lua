-- Settle, stage what is due, claim.
-- Uses: base ready exits pick
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock
--       2 what channels begin with
--       3 the worker  4 the claim number, or empty
--       5 the wants: {queues or false, limit, exclude, suspects, id or false} each
--       6 completions: {ids, entries as text, finished_at, keep in microseconds or false, for each}
--       7 other settlements: [id, entry as text, outcome, attempts and crashes to add, state, started, finished_at or 0,
--         delay, reason or false, keep or false] each, times in microseconds
--       8... the client's part of each settlement, completions first
-- Returns  1 now  2 control  3 next due or empty  4 1 when suspects wait  5 who listens: 1 for done, 2 for event
--          6 positions, from 1, of refused settlements, completions first
--          7 for each other settlement the state it went to, empty when refused
--          8 ids claimed  9 their entries  10 of all of them, end to end, [DYN or nil, HEAD, the client's part]
local now = tonumber(ARGV[1]) or clock()
local me, claim_no = ARGV[3], ARGV[4]
local row = call('HGET', P .. 'worker', me)
local worker = row and unpacked(row)
local name = worker and worker[1] or false
local refused, went = {}, {}

-- settle
local ids, numbers, finished, keeps = {}, {}, {}, {}
if ARGV[6] ~= '' then ids, numbers, finished, keeps = unpack(unpacked(ARGV[6])) end
local others = ARGV[7] ~= '' and unpacked(ARGV[7]) or {}
local count = #ids
if count > 0 then
  local runs, dyns = gather('HMGET', RUN, ids), call('EXISTS', DYN) == 1 and gather('HMGET', DYN, ids)
  local done, batch_of, by_keep = {}, {}, {}
  for i = 1, count do
    local good = false
    if runs[i] then
      local entry, _, batch = running(runs[i])
      good = entry == numbers[i] and batch.worker == me
      if good then
        insert(done, ids[i])
        insert(batch_of, batch)
        local keep = keeps[i]
        local group = by_keep[keep]
        if not group then
          group = {}
          by_keep[keep] = group
        end
        local at = finished[i]
        insert(group, {ids[i], batch.queue, entry, dyns and dyns[i], ARGV[7 + i], at == 0 and now or at})
      end
    end
    if not good then insert(refused, i) end
  end
  unclaim(done, batch_of)
  for keep, jobs in pairs(by_keep) do
    finish(jobs, {state = 'completed', worker = name, keep = keep, attempts = 1, crashes = 0}, now)
  end
end
if #others > 0 then
  local named = {}
  for i, s in ipairs(others) do named[i] = s[1] end
  local runs, records, dyns = gather('HMGET', RUN, named), gather('HMGET', JOB, named), gather('HMGET', DYN, named)
  local exits = {}
  for i, s in ipairs(others) do
    went[i] = ''
    local entry, score, batch
    if runs[i] and records[i] then entry, score, batch = running(runs[i]) end
    if entry == s[2] and batch.worker == me then
      local h = head(records[i])
      local x = {
        id = s[1], entry = entry, score = score, batch = batch, h = h, d = dyns[i] and unpacked(dyns[i]) or fresh(h),
        outcome = s[3], attempts = s[4], crashes = s[5], state = s[6], started = s[7], finished_at = s[8] == 0 and now or s[8],
        delay = s[9], reason = s[10], keep = s[11], E = ARGV[7 + count + i],
      }
      insert(exits, x)
      went[i] = x
    else
      insert(refused, count + i)
    end
  end
  leave_claims(exits, name, now)
  for i, x in ipairs(went) do
    if x ~= '' then went[i] = x.to end
  end
end

-- stage
local due = next_due()
if due and tonumber(due) <= now then
  stage(now, 1000)
  due = next_due()
end

-- claim
local wants = ARGV[5] ~= '' and unpacked(ARGV[5]) or {}
local paused = {}
if #wants > 0 then
  for _, queue in ipairs(call('SMEMBERS', P .. 'paused')) do paused[queue] = true end
end
local claimed, claims, blob = {}, {}, {}
local stands = worker and worker[6] == 0

-- Hand out what was *taken*, with *known* entries or that of its place; a job whose record somebody has deleted is counted.
local function give(taken, known, scores, queues)
  local records, dyns = gather('HMGET', JOB, taken), call('EXISTS', DYN) == 1 and gather('HMGET', DYN, taken)
  for i, id in ipairs(taken) do
    local record, d = records[i], dyns and dyns[i] or NIL
    if record then
      insert(claimed, id)
      local entry = known and known[i]
      if not entry then entry = d ~= NIL and digits(unpacked(d)[1]) or digits(place_of(tonumber(scores[i]))) end
      insert(claims, entry)
      insert(blob, '\147' .. d .. record)
    else
      taken[i] = false
      add_tally(now, queues and queues[i] or '', 'vanished', 1)
    end
  end
end

local function repeat_claim()
  local held = call('HGET', P .. 'held:' .. me, claim_no)
  local all = held and unpacked(held) or {}
  local runs = gather('HMGET', RUN, all)
  local still, known = {}, {}
  for i, id in ipairs(all) do
    if runs[i] then
      local entry, _, batch = running(runs[i])
      if batch.worker == me and batch.no == claim_no then
        insert(still, id)
        insert(known, entry)
      end
    end
  end
  give(still, known)
end

local function claim(picked)
  local taken, scores, queues, from = {}, {}, {}, {}
  for i, one in ipairs(picked) do
    taken[i], scores[i], queues[i] = one[1], one[2], one[3]
    from[one[3]] = (from[one[3]] or 0) + 1
  end
  local at = #claims
  give(taken, nil, scores, queues)
  local runs, suffix, lost = {}, {}, {}
  for i, id in ipairs(taken) do
    local queue = queues[i]
    if id then
      at = at + 1
      local rest = suffix[queue]
      if not rest then
        rest = ' ' .. claim_no .. ' ' .. digits(now) .. ' ' .. me .. '\0' .. queue
        suffix[queue] = rest
      end
      insert(runs, id)
      insert(runs, claims[at] .. ' ' .. scores[i] .. rest)
    else
      lost[queue] = (lost[queue] or 0) + 1
    end
  end
  for queue, number in pairs(from) do
    take_first(queue, picked[1][4], number, picked.named)
    depth('r' .. queue, number - (lost[queue] or 0))
  end
  many('HSET', RUN, runs)
end

if claim_no ~= '' and stands and call('HEXISTS', P .. 'lease:' .. me, claim_no) == 1 then
  repeat_claim()  -- its reply was lost
elseif #wants > 0 and stands then
  for _, want in ipairs(wants) do
    local picked = pick(want, paused)
    if #picked > 0 then claim(picked) end
  end
  if #claimed > 0 then
    call('HSET', P .. 'lease:' .. me, claim_no, digits(now))
    call('HSET', P .. 'held:' .. me, claim_no, pack(claimed))
    call('HSET', P .. 'left:' .. me, claim_no, #claimed)
  end
end

local heard = call('PUBSUB', 'NUMSUB', ARGV[2] .. 'done', ARGV[2] .. 'event')
return {
  digits(now), call('HGET', META, 'control') or '0', due or '', suspects_wait(wants, paused) and 1 or 0,
  (tonumber(heard[2]) > 0 and 1 or 0) + (tonumber(heard[4]) > 0 and 2 or 0),
  refused, went, claimed, claims, concat(blob),
}

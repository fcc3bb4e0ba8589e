-- Settle, stage what is due, claim.
-- Uses: base room jobs ready gating lanes exits stage limits pick start
-- Spares: gating limits start
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
local row = call('HGET', '@worker', me)
local worker = row and unpacked(row)
local name = worker and worker[1] or false
local refused, went = {}, {}

-- settle
local ids, numbers, finished, keeps = {}, {}, {}, {}
if ARGV[6] ~= '' then ids, numbers, finished, keeps = unpack(unpacked(ARGV[6])) end
local others = ARGV[7] ~= '' and unpacked(ARGV[7]) or {}
local count = #ids
if count > 0 then
  local runs, dyns = gather('HMGET', RUN, ids), some_dyns() and gather('HMGET', DYN, ids)
  local batch_of, by_keep = {}, {}
  local all, good = {}, 0
  for i = 1, count do
    local entry, batch, _
    if runs[i] then entry, _, batch = running(runs[i]) end
    if batch and entry == numbers[i] and batch.worker == me then
      good = good + 1
      all[good], batch_of[good] = ids[i], batch
      local keep = keeps[i]
      local group = by_keep[keep]
      if not group then
        group = {n = 0, ids = {}, queues = {}, dyns = dyns and {}, bodies = {}, times = {}}
        by_keep[keep] = group
      end
      local n = group.n + 1
      group.n, group.ids[n], group.queues[n] = n, ids[i], batch.queue
      group.bodies[n], group.times[n] = ARGV[7 + i], finished[i] == 0 and now or finished[i]
      if dyns then group.dyns[n] = dyns[i] end
    else
      insert(refused, i)
    end
  end
  unclaim(all, batch_of)
  for keep, g in pairs(by_keep) do
    local how = {state = 'completed', worker = name, keep = keep, attempts = 1, crashes = 0}
    finish(g.ids, g.queues, g.dyns, g.bodies, g.times, how, now)
  end
end
if #others > 0 then
  local named = {}
  for i, s in ipairs(others) do named[i] = s[1] end
  local runs, records, dyns = gather('HMGET', RUN, named), gather('HMGET', JOB, named), gather('HMGET', DYN, named)
  local exits, places = {}, {}
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
      insert(places, i)
    else
      insert(refused, count + i)
    end
  end
  leave_claims(exits, name, now)
  for n, i in ipairs(places) do went[i] = exits[n].to end
end

-- stage
local due = next_due()
if due and tonumber(due) <= now then
  stage(now, 1000)
  due = next_due()
end

-- admit
local wants = ARGV[5] ~= '' and unpacked(ARGV[5]) or {}
local paused = {}
if #wants > 0 then
  for _, queue in ipairs(call('SMEMBERS', '@paused')) do paused[queue] = true end
end
local stands = worker and worker[6] == 0
-- Of several wants one could starve, if those of another were enough.
local want = #wants == 1 and not wants[1].id and not wants[1].suspects and not meta[3] and wants[1] or nil
local opening, picked = GATED and next_opening(now), nil
local opens, broken = opening and opening <= now, GATED and call('EXISTS', '@breaker') == 1
-- Here when opens or broken: admit back

-- What *want* takes, if it is so much that none of the many who wait to be looked at could come before it.
local function enough()
  if call('SCARD', '@freed') ~= 1 or call('SISMEMBER', '@freed', '*') == 0 or call('ZCARD', '@wait:*') < 20 then return end
  local first = call('ZRANGE', '@opens', 0, 0, 'WITHSCORES')[2]
  if first and tonumber(first) <= now then return end
  local there = 0
  for _, queue in ipairs(queues_of(want, paused)) do there = there + call('ZCARD', key_of(queue, false)) end
  if there < want.limit then return end
  local some = pick(want, paused)
  local last = some[want.limit]
  return last and tonumber(last[2]) < tonumber(call('ZRANGE', '@wait:*', 0, 0, 'WITHSCORES')[2]) and some
end

if opens then
  picked = want and enough()
  if not picked then admit(now, 1000, nil, want) end
  opening = next_opening(now)
  if opening then opening = max(opening, now + 100000) end  -- more than one turn admits
end

-- claim
local claimed, claims, blob = {}, {}, {}
local most
if meta[3] and #wants > 0 then
  most = {}
  for _, queue in ipairs(call('HKEYS', '@limits')) do
    local free_, at = may_start(queue, now)
    if free_ < HUGE then most[queue] = free_ end
    if free_ <= 0 then paused[queue] = true end
    if at and call('ZSCORE', '@ready', queue) then opening = min(opening or at, at) end
  end
end

-- Hand out what was *taken*, with *known* entries or that of its place; a job whose record somebody has deleted is counted.
local function give(taken, known, scores, queues)
  local records, dyns = gather('HMGET', JOB, taken), some_dyns() and gather('HMGET', DYN, taken)
  local n = #claimed
  for i, id in ipairs(taken) do
    local record, d = records[i], dyns and dyns[i]
    if record then
      local entry = known and known[i]
      if not entry then
        if d then
          entry = digits(unpacked(d)[1])
        else
          local score = tonumber(scores[i])
          entry = score >= 0 and score < LEVEL and scores[i] or digits(place_of(score))
        end
      end
      n = n + 1
      claimed[n], claims[n], blob[2 * n - 1], blob[2 * n] = id, entry, d and '\147' .. d or '\147\192', record
    else
      taken[i] = false
      add_tally(now, queues and queues[i] or '', 'vanished', 1)
    end
  end
  return records
end

local function repeat_claim()
  local held = call('HGET', '@held:' .. me, claim_no)
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
  if call('EXISTS', EXPIRES) == 1 then many('ZREM', EXPIRES, taken) end  -- what runs does not expire
  local before = #claims
  local records = give(taken, nil, scores, queues)
  local runs, suffix, lost, count = {}, {}, {}, 0
  local known, asked, places = {}, {}, {}
  for i, id in ipairs(taken) do
    local queue = queues[i]
    if id then
      local rest = suffix[queue]
      if not rest then
        rest = ' ' .. claim_no .. ' ' .. digits(now) .. ' ' .. me .. '\0' .. queue
        suffix[queue] = rest
      end
      count = count + 1
      known[count] = false
      if GATED and may_wait(records[i]) then
        insert(asked, id)
        insert(places, count)
      end
      runs[2 * count - 1], runs[2 * count] = id, claims[before + count] .. ' ' .. scores[i] .. rest
    else
      lost[queue] = (lost[queue] or 0) + 1
    end
  end
  for queue, number in pairs(from) do
    take_first(queue, picked[1][4], number, picked.named)
    depth('r' .. queue, number - (lost[queue] or 0))
  end
  many('HSET', RUN, runs)
  if #asked == 0 and not meta[3] then return end
  for i, gating in ipairs(#asked > 0 and gatings(asked) or {}) do known[places[i]] = gating end
  local sides, n = {}, 0
  for i, id in ipairs(taken) do
    if id then
      n = n + 1
      local side = sides[queues[i]] or {ids = {}, claims = {}, scores = {}, known = {}}
      local at = #side.ids + 1
      sides[queues[i]] = side
      side.ids[at], side.claims[at], side.scores[at], side.known[at] = id, claims[before + n], scores[i], known[n]
    end
  end
  for queue, side in pairs(sides) do started(queue, side, now) end
end

if claim_no ~= '' and stands and call('HEXISTS', '@lease:' .. me, claim_no) == 1 then
  repeat_claim()  -- its reply was lost
elseif #wants > 0 and stands then
  for _, want in ipairs(wants) do
    local some = picked or pick(want, paused, most)
    if broken and #some > 0 then some = without_broken(some, now) end
    if #some > 0 then claim(some) end
  end
  if #claimed > 0 then
    call('HSET', '@lease:' .. me, claim_no, digits(now))
    call('HSET', '@held:' .. me, claim_no, pack(claimed))
    call('HSET', '@left:' .. me, claim_no, #claimed)
  end
end

if opens then wake(ARGV[2]) end
if GATED then
  local first = tonumber(call('ZRANGE', '@opens', 0, 0, 'WITHSCORES')[2])
  opening = first and min(opening or first, first) or opening
end
if opening and (not due or opening < tonumber(due)) then due = digits(opening) end
local heard = redis.pcall('PUBSUB', 'NUMSUB', ARGV[2] .. 'done', ARGV[2] .. 'event')
if heard.err then heard = {'', 1, '', 1} end  -- who may not ask tells everybody
return {
  digits(now), call('HGET', META, 'control') or '0', due or '', suspects_wait(wants, paused) and 1 or 0,
  (tonumber(heard[2]) > 0 and 1 or 0) + (tonumber(heard[4]) > 0 and 2 or 0),
  refused, went, claimed, claims, concat(blob),
}

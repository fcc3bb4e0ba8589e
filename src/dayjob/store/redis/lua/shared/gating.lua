-- What jobs may have to wait for: keys, lanes, gates. Nothing of it is looked at before a first job has any (`gated` in `meta`).
--
--   gating          hash   id -> GATING of a job, live or finished
--   key, keyed      hash   hash of a key -> [id, until or 0];   zset of those that time frees
--   lane:<queue> NUL <priority> NUL <lane>  zset  its waiting jobs by place
--   blocked         set of queues;   blocked:<queue>  zset of its jobs, with the scores that they will have
--   hold:<queue>    zset of those of them that wait until the queue is opened;   later:<queue>  set of those that will
--   line:<line>     zset   those that wait at the same gates, in the order in which they pass
--   lines           hash   line -> the gate at which it waits, the first that was found closed; * while nobody has looked
--   wait:<gate>     zset   those lines, by the score that their first will have
--   freed           set    gates to be looked at;   opens  zset of gates at which lines wait, by when time opens them
--   fades           zset   gates that no job names any more, by when their first token ends
--   contested       set    gates at which somebody waits who is more urgent than one that has passed and runs not yet
--   gate            hash   gate -> [limit, per, live jobs that name it, limit set or false, per set, delayed until]
--   token:<gate>    zset   who has one of its tokens, with a score:
--                          c  priority - 1000, of who is no job GUEST and when it ends
--                          r  RESERVED + priority, then the stamp of the claim (and the member is another)
--                          o  its first place, below 0 once it has run;   b  -1, 0 once it runs
--   admitted        set of queues;   admitted:<queue>  zset of its jobs that have passed and run not yet, by when they passed
--   taker, taken    hash   holder that is no job -> [until, gates];   zset by when it ends
--   breaker         hash   key -> [state, since, until or 0];   failures:<key>  zset;   fails  zset of keys by when these are over
--   limits          hash   queue -> [said in code, said at run time];   started:<queue>  zset of its claims by their stamp;   starts
--
-- GATING: [hash, key, until, ttl or false, on conflict, latest or false] or false, lane or false, weight, gates.
-- A gate is [kind, key, limit, per in seconds]; its name is the kind's first letter and the key. `p` and a queue is a gate that
-- is closed while the queue is paused, `h` and a queue one that is closed while new jobs of it are held.
local GATING, TURN, HUGE = '@gating', 100, 1000000000
local GUEST, RESERVED = 4000000000000000, 8000000000000000
local GATED = meta[2]

local function gated()
  if not GATED then call('HSET', META, 'gated', 1) end
  GATED = true
end

-- GATING of each of *ids*, false where there is none, and whether any has it. It is read only: jobs of one key have the same, and
-- share it.
local gating_of = {}
local function gatings(ids)
  local found, any = {}, false
  if not GATED or #ids == 0 then return found, any end
  for i, text in ipairs(gather('HMGET', GATING, ids)) do
    local gating = text and gating_of[text]
    if text and not gating then
      gating = unpacked(text)
      gating_of[text] = gating
    end
    found[i], any = gating, any or text
  end
  return found, any
end

local function name_of(gate) return sub(gate[1], 1, 1) .. gate[2] end

-- The names of its gates.
local names_of_ = {}
local function names_of(gating)
  local names = names_of_[gating]
  if not names then
    names = {}
    for i, gate in ipairs(gating[4]) do names[i] = name_of(gate) end
    names_of_[gating] = names
  end
  return names
end

-- Which of *known* have the same GATING: their places, under it.
local function alike(known)
  local groups = {}
  for i = 1, #known do
    local gating = known[i]
    if gating then
      local group = groups[gating]
      if group then group[#group + 1] = i else groups[gating] = {i} end
    end
  end
  return groups
end

-- The gate of its strict lane, if it has one.
local function strict_of(gating)
  for _, name in ipairs(gating and names_of(gating) or {}) do
    if sub(name, 1, 1) == 'o' then return name end
  end
end

-- The line of a job; that of a strict lane is of no queue.
local function line_of(queue, gating)
  local lane = strict_of(gating)
  return lane and '\0' .. lane or queue .. '\0' .. concat(names_of(gating), '\0')
end

local function strict(line) return sub(line, 1, 1) == '\0' end

-- The first place in a strict lane of a waiting job that goes on in it, with the GATING *anew*: that of its *score* where it stands,
-- or what DYN keeps of one that is scheduled.
local function kept_place(gating, anew, score, d)
  local lane = strict_of(gating)
  return lane and lane == strict_of(anew) and (score and place_of(tonumber(score)) or d[13]) or nil
end

-- Into a table of lists.
local function under(lists, name, one, two)
  local list = lists[name]
  if not list then
    list = {}
    lists[name] = list
  end
  list[#list + 1] = one
  if two ~= nil then list[#list + 1] = two end
end

local function move(line, from, to, score)
  if from ~= to then
    if from then call('ZREM', '@wait:' .. from, line) end
    call('HSET', '@lines', line, to)
    if to == '*' then call('SADD', '@freed', '*') end
  end
  call('ZADD', '@wait:' .. to, score, line)
end

-- The score by which a line waits: that of its first, which in a strict lane is not the one by which it is first.
local function score_of(line, id, score)
  if not strict(line) then return score end
  local record = call('HGET', JOB, id)
  return record and call('ZSCORE', '@blocked:' .. head(record)[1], id) or score
end

-- A line of which the first may have changed stands where that one does; when it is *anew*, it is looked at again.
local function set_line(line, anew)
  local first = call('ZRANGE', '@line:' .. line, 0, 0, 'WITHSCORES')
  local at = call('HGET', '@lines', line)
  if first[1] then return move(line, at, (anew or not at) and '*' or at, score_of(line, first[1], first[2])) end
  if at then
    call('HDEL', '@lines', line)
    call('ZREM', '@wait:' .. at, line)
  end
end

-- Into their lines: [id, queue, score, GATING] each. Who keeps the token of a strict lane goes first in it.
local function line_up(jobs)
  local lines, names = {}, {}
  for _, job in ipairs(jobs) do
    local line, score = line_of(job[2], job[4]), job[3]
    if strict(line) then
      local token = call('ZSCORE', '@token:' .. sub(line, 2), job[1])
      score = token and '0' or digits(place_of(tonumber(score)))
    end
    if not lines[line] then insert(names, line) end
    under(lines, line, score, job[1])
  end
  local at, fresh_, stands = gather('HMGET', '@lines', names), {}, {}
  for i, line in ipairs(names) do
    local members = lines[line]
    many('ZADD', '@line:' .. line, members)
    local first = members[1]
    for n = 3, #members, 2 do
      if tonumber(members[n]) < tonumber(first) then first = members[n] end
    end
    if strict(line) then
      local id, new = call('ZRANGE', '@line:' .. line, 0, 0)[1], false
      for n = 2, #members, 2 do new = new or members[n] == id end
      if new then set_line(line, true) end
    elseif not at[i] then
      insert(fresh_, line)
      insert(fresh_, '*')
      insert(stands, first)
      insert(stands, line)
    else
      call('ZADD', '@wait:' .. at[i], 'LT', first, line)
    end
  end
  if #stands == 0 then return end
  many('HSET', '@lines', fresh_)
  many('ZADD', '@wait:*', stands)
  call('SADD', '@freed', '*')
end

-- Whether each of *ids* is to be held when its time has come: it was stored while its queue was to hold what is new.
local function held_later(queue, ids)
  if not meta[3] or call('EXISTS', '@later:' .. queue) == 0 then return {} end
  local held = gather('SMISMEMBER', '@later:' .. queue, ids)
  many('SREM', '@later:' .. queue, ids)
  return held
end

-- Jobs are blocked: [id, queue, score, GATING] each, or no GATING: only until their queue is opened.
local function block(jobs)
  local queues = {}
  for _, job in ipairs(jobs) do under(queues, job[2], job[3], job[1]) end
  for queue, members in pairs(queues) do
    many('ZADD', '@blocked:' .. queue, members)
    call('SADD', '@blocked', queue)
  end
end

-- They wait until their queue is opened.
local function hold(queue, jobs)
  block(jobs)
  for _, job in ipairs(jobs) do call('ZADD', '@hold:' .. queue, job[3], job[1]) end
end

-- Jobs are blocked no more. Where they are all up to the score *last*, if that is known, they go in one piece.
local function unblock(queue, ids, last)
  if last and call('ZCOUNT', '@blocked:' .. queue, '-inf', last) == #ids then
    call('ZREMRANGEBYSCORE', '@blocked:' .. queue, '-inf', last)
  else
    many('ZREM', '@blocked:' .. queue, ids)
  end
  if call('EXISTS', '@blocked:' .. queue) == 0 then call('SREM', '@blocked', queue) end
end

-- Blocked jobs go elsewhere: *ids* of *queue*.
local function take_blocked(queue, ids)
  local lines = {}
  for i, gating in ipairs(gatings(ids)) do
    if gating and #gating[4] > 0 then under(lines, line_of(queue, gating), ids[i]) end
  end
  for line, members in pairs(lines) do
    many('ZREM', '@line:' .. line, members)
    set_line(line, strict(line))
  end
  unblock(queue, ids)
  many('ZREM', '@hold:' .. queue, ids)
end

-- Gates may let somebody pass: those of *names* at which lines wait.
local function free(names)
  local some = {}
  if not next(names) or call('EXISTS', '@lines') == 0 then return end
  for name in pairs(names) do
    if call('EXISTS', '@wait:' .. name) == 1 then insert(some, name) end
  end
  many('SADD', '@freed', some)
end

-- What is known of a gate: [limit, per, jobs, limit set or false, per set, delayed until].
local function gate_of(name, text)
  if text == nil then text = call('HGET', '@gate', name) end
  return text and unpacked(text) or {1, 0, 0, false, 0, 0}
end

-- When the first token of a gate ends by time, or false.
local function ends_at(name, gate)
  if sub(name, 1, 1) == 'r' then
    local first = call('ZRANGE', '@token:' .. name, 0, 0, 'WITHSCORES')
    local at = tonumber(first[2])
    return at and at < GUEST and at + floor((gate[4] and gate[5] or gate[2]) * 1000000)
  end
  local first = call('ZRANGEBYSCORE', '@token:' .. name, '(' .. digits(GUEST), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return first[2] and tonumber(first[2]) - GUEST
end

-- The gates' numbers as *named* has them (name -> [gate or false, jobs more or fewer]); what is of no use any more goes.
local function name_gates(named, now)
  local names, kept, gone, changed = {}, {}, {}, {}
  for name in pairs(named) do insert(names, name) end
  local texts = gather('HMGET', '@gate', names)
  local guests = #names > 0 and call('EXISTS', '@taker') == 1
  for i, name in ipairs(names) do
    local by, gate = named[name], gate_of(name, texts[i])
    if by[1] and (gate[1] ~= by[1][3] or gate[2] ~= by[1][4]) then
      gate[1], gate[2] = by[1][3], by[1][4]
      if texts[i] then changed[name] = true end
    end
    gate[3] = max(0, gate[3] + by[2])
    local used = gate[3] > 0 or gate[4] or gate[6] > now
    -- Where no job names it any more, only rates and guests have tokens.
    if not used and (guests or sub(name, 1, 1) == 'r') then used = call('EXISTS', '@token:' .. name) == 1 end
    if used then
      insert(kept, name)
      insert(kept, pack(gate))
      local at = gate[3] == 0 and (gate[6] > now and gate[6] or ends_at(name, gate))
      if at then call('ZADD', '@fades', digits(at), name) end
    else
      insert(gone, name)
    end
  end
  many('HSET', '@gate', kept)
  many('HDEL', '@gate', gone)
  many('ZREM', '@fades', gone)
  if next(changed) then free(changed) end
  return gone
end

-- Time opens a gate: whoever waits at it is let pass then.
local function open_at(name, at)
  if call('EXISTS', '@wait:' .. name) == 1 then call('ZADD', '@opens', digits(at), name) end
end

-- When there is something to admit: now, later (a stamp), or false.
local function next_opening(now)
  if call('EXISTS', '@freed') == 1 then return now end
  local first = call('ZRANGE', '@opens', 0, 0, 'WITHSCORES')
  return first[2] and tonumber(first[2]) or false
end

-- Who holds the key *hash*, if anybody does.
local function holder_of(hash, now)
  local text = call('HGET', '@key', hash)
  local key = text and unpacked(text)
  return key and (key[2] == 0 or key[2] > now) and key[1]
end

local function take_key(id, unique, now)
  local over = unique[4] and now + floor(unique[4] * 1000000) or 0
  call('HSET', '@key', unique[1], pack({id, over}))
  if over > 0 then
    call('ZADD', '@keyed', digits(over), unique[1])
  else
    call('ZREM', '@keyed', unique[1])
  end
end

local function free_key(id, unique)
  local text = call('HGET', '@key', unique[1])
  if text and unpacked(text)[1] == id then
    call('HDEL', '@key', unique[1])
    call('ZREM', '@keyed', unique[1])
  end
end

-- Jobs leave their gates: the one way back of tokens. When it is *for_good*, they leave strict lanes and their keys, too; else
-- whoever has its turn in a strict lane has it again when it comes back, unless it comes with a GATING *anew* that names another.
-- GATING that each had.
local function leave(ids, for_good, now, anew)
  local known, any = gatings(ids)
  if not any then return known end
  local tokens, named, freed, turn = {}, {}, {}, strict_of(anew)
  for gating, places in pairs(alike(known)) do
    for _, name in ipairs(names_of(gating)) do
      if for_good or anew then
        named[name] = named[name] or {false, 0}
        named[name][2] = named[name][2] - #places
      end
      if for_good or sub(name, 1, 1) ~= 'o' or (anew and name ~= turn) then
        local list = tokens[name] or {}
        local size = #list
        tokens[name] = list
        for n = 1, #places do list[size + n] = ids[places[n]] end
      end
    end
    if for_good and gating[1] and gating[1][3] ~= 'expired' then
      for _, i in ipairs(places) do free_key(ids[i], gating[1]) end
    end
  end
  for name, members in pairs(tokens) do
    many('ZREM', '@token:' .. name, members)
    freed[name] = true
  end
  for _, name in ipairs(name_gates(named, now)) do freed[name] = nil end  -- nobody can wait there
  free(freed)
  return known
end

-- Live jobs name their gates: when they come, and when they come back from their end.
local function arrive(found, newest, now)
  local named = {}
  for _, gating in ipairs(found) do
    for _, gate in ipairs(gating and gating[4] or {}) do
      local name = name_of(gate)
      named[name] = named[name] or {false, 0}
      named[name][2] = named[name][2] + 1
      if newest or (named[name][2] == 1 and call('HEXISTS', '@gate', name) == 0) then named[name][1] = gate end
    end
  end
  name_gates(named, now)
end

-- A job says anew how much its gates have: it is the newest that says so.
local function say(gating, now)
  local named = {}
  for _, gate in ipairs(gating and gating[4] or {}) do named[name_of(gate)] = {gate, 0} end
  name_gates(named, now)
end

-- GATING of a job with that of *other* but for the key, which stays whose it is; and whether that is another than it has.
local function with_gates(gating, other)
  local anew = {gating and gating[1] or false, other[2], other[3], other[4]}
  local old = gating or {false, false, 1, {}}
  return anew, pack({old[2], old[3], old[4]}) ~= pack({anew[2], anew[3], anew[4]})
end

-- Waiting jobs that stand nowhere now have GATING *anew*, all with the same gates: {id, GATING} each.
local function regate(jobs, now)
  if #jobs == 0 then return end
  gated()
  local ids, values, none, found = {}, {}, {}, {}
  for i, job in ipairs(jobs) do
    local anew = job[2]
    ids[i], found[i] = job[1], anew
    if anew[1] or anew[2] or #anew[4] > 0 then
      insert(values, job[1])
      insert(values, pack(anew))
    else
      insert(none, job[1])
    end
  end
  leave(ids, false, now, found[1])
  many('HSET', GATING, values)
  many('HDEL', GATING, none)
  arrive(found, true, now)
end

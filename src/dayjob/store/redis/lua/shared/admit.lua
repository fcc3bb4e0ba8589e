-- Admission: blocked jobs become available when all their gates are open.
local rooms, times, pausing, guests = {}, {}, nil, nil
local purged = {}  -- gates of which only tokens are left whose time is not over
local entered = {}  -- queues into which somebody has passed

local function is_paused(queue)
  if not pausing then
    pausing = {}
    for _, name in ipairs(call('SMEMBERS', '@paused')) do pausing[name] = true end
  end
  return pausing[queue]
end

-- Tokens of a gate whose time is over go; how many.
local function purge(name, gate, now)
  purged[name] = true
  local kind, key = sub(name, 1, 1), '@token:' .. name
  if kind ~= 'r' then return call('ZREMRANGEBYSCORE', key, '(' .. digits(GUEST), digits(GUEST + now)) end
  local per = floor((gate[4] and gate[5] or gate[2]) * 1000000)
  return call('ZREMRANGEBYSCORE', key, '-inf', digits(now - per))
end

-- State of the breaker *key*: [state, since, until or 0]. One that has been open long enough is probed, and who passed before it
-- opened is not in the way of the probe.
local function breaker_of(key, now)
  local text = call('HGET', '@breaker', key)
  local found = text and unpacked(text) or {'closed', 0, 0}
  if found[1] == 'open' and found[3] > 0 and found[3] <= now then
    found = {'probing', found[3], 0}
    call('HSET', '@breaker', key, pack(found))
    call('ZREMRANGEBYSCORE', '@token:b' .. key, '-inf', 0)
  end
  return found
end

-- How many more a gate lets pass now, and when time opens it if it lets none.
local function look_at(name, now, text)
  local kind, key = sub(name, 1, 1), sub(name, 2)
  if kind == '*' then return HUGE end
  if kind == 'p' then return is_paused(key) and 0 or HUGE end
  local gate = gate_of(name, text)
  if gate[6] > now then return 0, gate[6] end
  if kind == 'b' then
    local found = breaker_of(key, now)
    if found[1] == 'closed' then return HUGE end
    if found[1] == 'open' then return 0, found[3] > 0 and found[3] or nil end
    return 1 - call('ZCARD', '@token:' .. name)
  end
  local limit = gate[4] or gate[1]
  local taken = call('ZCARD', '@token:' .. name)
  if taken >= limit then taken = taken - purge(name, gate, now) end
  if taken < limit then return limit - taken end
  return 0, ends_at(name, gate)
end

local function room(name, now, text)
  if not rooms[name] then
    local free, at = look_at(name, now, text)
    rooms[name], times[name] = free, at
    if at then open_at(name, at) end
  end
  return rooms[name]
end

-- Whether time alone can free tokens of a gate of that *kind*.
local function ages(kind)
  if guests == nil then guests = call('EXISTS', '@taker') == 1 end
  return kind == 'r' or (kind == 'c' and guests)
end

local OF = {c = true, r = true}

-- What is written in the end: the tokens of each gate, and of each queue those who pass; score, id ... each.
local tokens, passing = {}, {}

local function token_of(kind, score)
  if kind == 'c' then return digits(priority_of(score) - 1000) end
  if kind == 'r' then return digits(RESERVED + priority_of(score)) end
  return kind == 'o' and digits(place_of(score)) or '-1'
end

-- *members* of a line pass; score, id ... .
local function pass(queue, names, members)
  local list = passing[queue] or {}
  local size_ = #list
  passing[queue] = list
  for at = 1, #members do list[size_ + at] = members[at] end
  for _, name in ipairs(names) do
    local kind, mine, last, token = sub(name, 1, 1), tokens[name] or {}, nil, nil
    local first = #mine
    tokens[name] = mine
    for at = 1, #members, 2 do
      local score = tonumber(members[at])
      local level = kind == 'o' and score or floor(score / LEVEL)
      if level ~= last then last, token = level, token_of(kind, score) end
      mine[first + at], mine[first + at + 1] = token, members[at + 1]
    end
  end
end

-- Who passed is available.
local function let_in(now)
  local stamp = digits(now)
  for queue, members in pairs(passing) do
    local ids, passed, sides = {}, {}, {}
    local last = -HUGE * LEVEL
    for at = 2, #members, 2 do
      local id, score = members[at], tonumber(members[at - 1])
      ids[at / 2], passed[at - 1], passed[at] = id, stamp, id
      if score > last then last = score end
    end
    local dyns = some_dyns() and gather('HMGET', DYN, ids)
    if dyns then
      for i, id in ipairs(ids) do
        under(sides, dyns[i] and unpacked(dyns[i])[6] or false, members[2 * i - 1], id)
      end
    else
      sides[false] = members
    end
    unblock(queue, ids, digits(last))
    many('ZADD', '@admitted:' .. queue, passed)
    call('SADD', '@admitted', queue)
    entered[queue] = true
    for suspect, list in pairs(sides) do put_ready(queue, suspect, list) end
  end
  passing = {}
end

-- The queue of a line, the names of the gates of its first, and its first if it is a strict lane.
local function gates_of(line)
  local names = {}
  if not strict(line) then
    for name in string.gmatch(line, '%z([^%z]+)') do insert(names, name) end
    return string.match(line, '^[^%z]*'), names
  end
  local id = call('ZRANGE', '@line:' .. line, 0, 0)[1]
  if not id then return false, names end
  local record, gating = call('HGET', JOB, id), gatings({id})[1]
  if not record or not gating then return false, names, id end  -- somebody has deleted keys
  for _, gate in ipairs(gating[4]) do insert(names, name_of(gate)) end
  return head(record)[1], names, id
end

-- Up to *most* of *one*, a line, that come before *bound*, the score of whoever is next elsewhere, are among its `members`; how many.
local function first_of(one, bound, most)
  local members, passed, score = one.members, one.passed, nil
  while true do
    if not one.read[one.at] and not one.last then
      local ahead = min(one.ahead, most - passed + one.passed + 1)
      one.read = call('ZRANGE', '@line:' .. one.line, passed, passed + ahead - 1, 'WITHSCORES')
      one.at, one.ahead, one.last = 1, min(4 * ahead, 1000), #one.read < 2 * ahead
    end
    score = tonumber(one.read[one.at + 1])
    local count = passed - one.passed
    if not score or count == most or (count > 0 and bound and score > bound) then break end
    passed = passed + 1
    members[2 * passed - 1], members[2 * passed] = one.read[one.at + 1], one.read[one.at]
    one.at = one.at + 2
  end
  local count = passed - one.passed
  one.score, one.passed = score, passed
  return count
end

-- The first of a strict lane is.
local function first_alone(one)
  local second = call('ZRANGE', '@line:' .. one.line, 1, 1, 'WITHSCORES')
  one.members = {call('ZSCORE', '@blocked:' .. one.queue, one.first), one.first}
  one.score, one.passed = tonumber(second[1] and score_of(one.line, second[1], second[2])), 1
  return 1
end

-- What stands in the line of *one* is to be looked at.
local function enter(one)
  one.queue, one.names, one.first = gates_of(one.line)
  one.members, one.passed, one.read, one.at = {}, 0, {}, 1
  if one.queue and is_paused(one.queue) then
    one.shut = 'p' .. one.queue
    rooms[one.shut] = 0
  end
end

-- Let pass of *one*, a line, what can before *bound*, or *beyond* it where none of its gates can become short of tokens; how many.
-- `shut` is the gate at which it waits from now on; else it goes on with the `score` of who is next, if there is anybody.
local function look(one, bound, beyond, most, now)
  if not one.names then enter(one) end
  if not one.queue or one.shut then return 0 end
  local names, first, own, all = one.names, one.first, nil, most
  for i = 1, #names do
    local name = names[i]
    local free = rooms[name] or room(name, now)
    if first and sub(name, 1, 1) == 'o' and call('ZSCORE', '@token:' .. name, first) then own, free = name, 1 end
    if free <= 0 then
      one.shut = name
      return 0
    end
    if free < most then most = free end
  end
  if bound and most == all then bound = max(bound, beyond) end
  local count = first and first_alone(one) or first_of(one, bound, most)
  for i = 1, #names do
    local name = names[i]
    local free = rooms[name] - (name == own and 0 or count)  -- its own token it had already
    if free <= 0 and name ~= own and not purged[name] and ages(sub(name, 1, 1)) then
      free = free + purge(name, gate_of(name), now)
    end
    rooms[name] = free
    if free <= 0 and one.score and (not first or sub(name, 1, 1) == 'o') then one.shut = name end
  end
  return count
end

-- Lines wait at a gate that is closed, the most urgent with the score *first*. Where somebody less urgent has passed and does not
-- run yet, the sweep looks.
local function wait_at(name, first)
  local kind, at = sub(name, 1, 1), times[name]
  if not at and ages(kind) then at = ends_at(name, gate_of(name)) end
  if at then call('ZADD', '@opens', digits(at), name) end
  if OF[kind] then
    local base = kind == 'c' and -1000 or RESERVED
    local below = digits(base + priority_of(first) - 1)
    if call('ZCOUNT', '@token:' .. name, digits(base - 127), below) > 0 then call('SADD', '@contested', name) end
  end
end

-- What this admission did with the lines that were *seen*; *closed* are gates that others wait at, by the score of their first.
local function write(seen, closed, now)
  local emptied, gone, leave_, come, to = {}, {}, {}, {}, {}
  for _, one in ipairs(seen) do
    local line, from, gate = one.line, one.from, one.shut or one.from
    if one.passed > 0 then pass(one.queue, one.names, one.members) end
    if not one.queue then
      if one.first then call('ZREM', '@line:' .. line, one.first) end
      set_line(line, true)
    elseif not one.score then  -- all have passed
      insert(emptied, '@line:' .. line)
      insert(gone, line)
      under(leave_, from, line)
    else
      if one.passed > 0 then call('ZREMRANGEBYRANK', '@line:' .. line, 0, one.passed - 1) end
      under(come, gate, digits(one.score), line)
      if gate ~= from then
        under(leave_, from, line)
        insert(to, line)
        insert(to, gate)
      end
      if one.shut then closed[gate] = min(closed[gate] or one.score, one.score) end
    end
  end
  for name, list in pairs(tokens) do
    if sub(name, 1, 1) == 'o' then call('ZADD', '@token:' .. name, 'NX', unpack(list)) else many('ZADD', '@token:' .. name, list) end
  end
  tokens = {}
  for at = 1, #emptied, 4000 do call('UNLINK', unpack(emptied, at, min(at + 3999, #emptied))) end
  many('HDEL', '@lines', gone)
  many('HSET', '@lines', to)
  for name, lines in pairs(leave_) do many('ZREM', '@wait:' .. name, lines) end
  for name, lines in pairs(come) do many('ZADD', '@wait:' .. name, lines) end
  for name, first in pairs(closed) do wait_at(name, first) end
  let_in(now)
end

-- Whoever has the lowest `score` on top, of equals who was pushed last: `push` somebody, `sink` a top of which the score has changed,
-- `drop` it.
local heap, size = {}, 0

local function push(node)
  size = size + 1
  local at = size
  while at > 1 do
    local above = floor(at / 2)
    if heap[above].score < node.score then break end
    heap[at] = heap[above]
    at = above
  end
  heap[at] = node
end

local function sink()
  local node, at = heap[1], 1
  while 2 * at <= size do
    local child = 2 * at
    if child < size and heap[child + 1].score < heap[child].score then child = child + 1 end
    if heap[child].score >= node.score then break end
    heap[at] = heap[child]
    at = child
  end
  heap[at] = node
end

local function drop()
  heap[1], heap[size] = heap[size], nil
  size = size - 1
  if size > 1 then sink() end
end

-- The score of whoever comes after the top, if there is anybody.
local function second()
  local left, right = heap[2], heap[3]
  return left and (right and right.score < left.score and right.score or left.score)
end

-- Jobs that were held go where they would have gone; whether there are more.
local function release_held(queue, limit)
  local limits = limits_of(queue)
  if limits and limits[6] == 'hold' then return false end
  local held = call('ZRANGE', '@hold:' .. queue, 0, limit - 1, 'WITHSCORES')
  local ids, members = {}, {}
  for at = 1, #held, 2 do
    insert(ids, held[at])
    insert(members, held[at + 1])
    insert(members, held[at])
  end
  if #ids == 0 then return false end
  many('ZREM', '@hold:' .. queue, ids)
  unblock(queue, ids)
  make_ready(queue, false, members)
  entered[queue] = true
  return call('EXISTS', '@hold:' .. queue) == 1
end

-- Gates whose time has come are looked at.
local function open_by_time(now)
  local due = call('ZRANGEBYSCORE', '@opens', '-inf', digits(now), 'LIMIT', 0, 1000)
  if #due == 0 then return end
  many('ZREM', '@opens', due)
  local named, waited = {}, {}
  for _, name in ipairs(due) do
    named[name] = {false, 0}
    waited[name] = true
    if sub(name, 1, 1) == 'b' then breaker_of(sub(name, 2), now) else purge(name, gate_of(name), now) end
  end
  name_gates(named, now)
  free(waited)
end

local function keys_of(set)
  local names = {}
  for name in pairs(set) do insert(names, name) end
  return names
end

-- What will be asked of the gates of many lines, in one go: *read* is line, score ... .
local function look_ahead(read, now)
  local names, seen = {}, {}
  for at = 1, #read, 2 do
    for name in string.gmatch(read[at], '%z([^%z]+)') do
      if not rooms[name] and not seen[name] then
        seen[name] = true
        insert(names, name)
      end
    end
  end
  for i, text in ipairs(gather('HMGET', '@gate', names)) do room(names[i], now, text) end
end

-- The next line at *gate*, which is the top of the heap or comes into it; whether there is one.
local function advance(gate, now)
  gate.at = gate.at + 2
  if not gate.read[gate.at] and not gate.last then
    gate.read = call('ZRANGE', '@wait:' .. gate.name, gate.from, gate.from + gate.ahead - 1, 'WITHSCORES')
    gate.last, gate.at, gate.from = #gate.read < 2 * gate.ahead, 1, gate.from + gate.ahead
    gate.ahead = 200
    if gate.name == '*' then look_ahead(gate.read, now) end
  end
  gate.score = tonumber(gate.read[gate.at + 1])
  return gate.score
end

-- Whether *want* takes from a queue.
local function taken_by(want)
  local named = {}
  for _, queue in ipairs(want.queues or want.exclude) do named[queue] = true end
  return function(queue) return (named[queue] or false) == (want.queues and true or false) end
end

-- Up to *limit* jobs pass, the most urgent first at each gate; how many. Lines of queues in *shunned* are passed over. When as many
-- have passed as *want* takes, no more than a few lines are looked at, unless a gate came free, at which others may wait. In the heap is
-- each gate that is looked at, with the first line there that nobody has seen yet, and the lines of which more may pass.
local function admit(now, limit, shunned, want)
  rooms, times, purged, pausing, heap, size = {}, {}, {}, nil, {}, 0
  open_by_time(now)
  local over, seen, closed, passed, looked, takes = {}, {}, {}, 0, 0, want and taken_by(want)
  local left, few, lines = want and want.limit or HUGE, 200, 0
  local names = call('SRANDMEMBER', '@freed', 1000)
  table.sort(names)
  for _, name in ipairs(names) do
    if sub(name, 1, 1) == 'h' then over[name] = not release_held(sub(name, 2), 1000) or nil end
  end
  insert(names, 1, '*')
  for i, name in ipairs(names) do
    if sub(name, 1, 1) ~= 'h' and (name ~= '*' or i == 1) then
      local gate = {name = name, from = 0, at = -1, ahead = name == '*' and 200 or 2, read = {}, skipped = 0}
      if room(name, now) > 0 and advance(gate, now) then
        push(gate)
        lines = lines + call('ZCARD', '@wait:' .. name)
        if name ~= '*' then few = 2000 end
      else
        over[name] = true
      end
    end
  end
  local ahead = 0
  for at = 1, size do ahead = ahead + #heap[at].read / 2 end
  ahead = min(1000, floor(limit / max(1, ahead)) + 2)  -- of each of so many lines about as many pass
  while size > 0 and passed < limit and looked < (left > 0 and 2000 or few) do
    local one = heap[1]
    if not one.name then
      -- No two stand at one place: so many are the next, wherever they wait, and all of them will be looked at.
      local next_ = lines <= few and limit - passed or min(limit - passed, max(left, few - looked))
      local count = look(one, second(), one.score + next_ - 1, limit - passed, now)
      looked, passed = looked + 1, passed + count
      if takes and one.queue and takes(one.queue) then left = left - count end
      if one.queue and one.score and not one.shut then sink() else drop() end
    elseif rooms[one.name] <= 0 then
      over[one.name], closed[one.name] = true, one.score
      drop()
    else
      local line = {line = one.read[one.at], from = one.name, score = one.score, ahead = ahead}
      if advance(one, now) then
        sink()
      else
        over[one.name] = true
        drop()
      end
      local queue = string.match(line.line, '^[^%z]*')
      if shunned and (shunned[queue] or shunned[line.line]) and one.skipped < 100 then
        one.skipped = one.skipped + 1
      else
        insert(seen, line)
        push(line)
      end
    end
  end
  for at = 1, size do over[heap[at].name or heap[at].from] = nil end  -- there would be more
  many('SREM', '@freed', keys_of(over))
  write(seen, closed, now)
  return passed
end

-- Wake whoever sleeps and may claim what has passed and was not claimed here.
local function wake(channels)
  for queue in pairs(entered) do
    if call('ZSCORE', '@ready', queue) or call('ZSCORE', '@suspect', queue) then redis.pcall('PUBLISH', channels .. 'wake', queue) end
  end
end

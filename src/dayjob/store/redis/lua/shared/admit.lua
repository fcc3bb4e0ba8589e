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

-- State of the breaker *key*: [state, since, until or 0]. One that has been open long enough is probed.
local function breaker_of(key, now)
  local text = call('HGET', '@breaker', key)
  local found = text and unpacked(text) or {'closed', 0, 0}
  if found[1] == 'open' and found[3] > 0 and found[3] <= now then
    found = {'probing', found[3], 0}
    call('HSET', '@breaker', key, pack(found))
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

-- A line waits at a gate that is closed. Where somebody less urgent has passed and does not run yet, the sweep looks.
local function wait_at(line, from, name, score, now)
  move(line, from, name, score)
  local kind, at = sub(name, 1, 1), times[name]
  if not at and ages(kind) then at = ends_at(name, gate_of(name)) end
  if at then open_at(name, at) end
  if OF[kind] then
    local base = kind == 'c' and -1000 or RESERVED
    local below = digits(base + priority_of(tonumber(score)) - 1)
    if call('ZCOUNT', '@token:' .. name, digits(base - 127), below) > 0 then call('SADD', '@contested', name) end
  end
end

-- What passes: its tokens now, and its place when all are known that pass. *members* is score, id ... .
local passing = {}

local function pass(queue, names, members, now)
  for _, name in ipairs(names) do
    local kind, tokens = sub(name, 1, 1), {}
    for at = 1, #members, 2 do
      local number = tonumber(members[at])
      if kind == 'c' then
        tokens[at] = priority_of(number) - 1000
      elseif kind == 'r' then
        tokens[at] = digits(RESERVED + priority_of(number))
      else
        tokens[at] = kind == 'o' and digits(place_of(number)) or -1
      end
      tokens[at + 1] = members[at + 1]
    end
    if kind == 'o' then
      call('ZADD', '@token:' .. name, 'NX', unpack(tokens))
    else
      many('ZADD', '@token:' .. name, tokens)
    end
    rooms[name] = rooms[name] - #members / 2
    if rooms[name] <= 0 and not purged[name] and ages(kind) then
      rooms[name] = rooms[name] + purge(name, gate_of(name), now)
    end
  end
  passing[queue] = passing[queue] or {}
  for at = 1, #members do insert(passing[queue], members[at]) end
end

-- Who passed is available.
local function let_in(now)
  local stamp = digits(now)
  for queue, members in pairs(passing) do
    local ids, passed, sides = {}, {}, {}
    for at = 2, #members, 2 do
      local id = members[at]
      ids[at / 2], passed[at - 1], passed[at] = id, stamp, id
    end
    local dyns = some_dyns() and gather('HMGET', DYN, ids)
    if dyns then
      for i, id in ipairs(ids) do
        under(sides, dyns[i] and unpacked(dyns[i])[6] or false, members[2 * i - 1], id)
      end
    else
      sides[false] = members
    end
    unblock(queue, ids)
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
  local record, gating = call('HGET', JOB, id), gatings({id})[1]
  if not record or not gating then return false, names, id end  -- somebody has deleted keys
  for _, gate in ipairs(gating[4]) do insert(names, name_of(gate)) end
  return head(record)[1], names, id
end

-- Lines of which all have passed.
local emptied = {}

-- Let pass of the line of *node* what can before *bound*, the score of whoever is next; how many.
local function look(node, bound, most, now)
  local line, shut, own = node.line, nil, nil
  local queue, names, first = gates_of(line)
  if not queue then
    call('ZREM', '@line:' .. line, first)
    set_line(line, true)
    return 0
  end
  if is_paused(queue) then
    shut = 'p' .. queue
    rooms[shut] = 0
  end
  for _, name in ipairs(names) do
    if shut then break end
    local free = room(name, now)
    if first and sub(name, 1, 1) == 'o' and call('ZSCORE', '@token:' .. name, first) then own, free = name, 1 end
    if free <= 0 then shut = name else most = min(most, free) end
  end
  if shut then
    wait_at(line, node.name, shut, node.score, now)
    return 0
  end
  local key, members, rest = '@line:' .. line, {}, nil
  if first then
    members = {call('ZSCORE', '@blocked:' .. queue, first), first}
    local second = call('ZRANGE', key, 1, 1, 'WITHSCORES')
    rest = second[1] and score_of(line, second[1], second[2])
  else
    most = min(most, 1000)
    local found = call('ZRANGE', key, 0, most, 'WITHSCORES')
    for at = 1, #found, 2 do
      local score = found[at + 1]
      if at > 2 * most or (at > 1 and bound and tonumber(score) > bound) then
        rest = score
        break
      end
      members[at], members[at + 1] = score, found[at]
    end
  end
  pass(queue, names, members, now)
  if own then rooms[own] = rooms[own] + 1 end  -- which it had already
  if not rest then
    insert(node.over, line)
    insert(emptied, key)
    return #members / 2
  end
  call('ZREMRANGEBYRANK', key, 0, #members / 2 - 1)
  local closed
  for _, name in ipairs(names) do
    if rooms[name] <= 0 and (not first or sub(name, 1, 1) == 'o') then closed = name end
  end
  if closed then
    wait_at(line, node.name, closed, rest, now)
  else
    move(line, node.name, node.name, rest)
    node.read = {}
  end
  return #members / 2
end

-- The lines that stand first at the gates *names*, the most urgent of all on top.
local function heap_of()
  local heap, size = {}, 0
  local function push(node)
    size = size + 1
    local at = size
    while at > 1 do
      local above = floor(at / 2)
      if heap[above].score <= node.score then break end
      heap[at] = heap[above]
      at = above
    end
    heap[at] = node
  end
  local function pop()
    local top, last = heap[1], heap[size]
    heap[size] = nil
    size = size - 1
    if size > 0 then
      local at = 1
      while 2 * at <= size do
        local child = 2 * at
        if child < size and heap[child + 1].score < heap[child].score then child = child + 1 end
        if heap[child].score >= last.score then break end
        heap[at] = heap[child]
        at = child
      end
      heap[at] = last
    end
    return top
  end
  return push, pop, function() return heap[1] end
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

-- Up to *limit* jobs pass, the most urgent first at each gate; how many. Lines of queues in *shunned* are passed over.
local function admit(now, limit, shunned)
  rooms, times, purged, pausing = {}, {}, {}, nil
  open_by_time(now)
  local over, gone, passed, looked = {}, {}, 0, 0
  local push, pop, top = heap_of()
  local function settle(node)  -- before what waits at a gate is read again
    many('ZREM', '@wait:' .. node.name, node.over)
    for _, line in ipairs(node.over) do insert(gone, line) end
    node.over = {}
  end
  local function stand(node)
    if room(node.name, now) <= 0 then
      settle(node)
      return insert(over, node.name)
    end
    node.at = node.at + 2
    if not node.read[node.at + 2] and not (node.last and node.read[node.at]) then
      settle(node)
      node.read = call('ZRANGE', '@wait:' .. node.name, node.skip, node.skip + node.ahead, 'WITHSCORES')
      node.last, node.at, node.ahead = #node.read <= 2 * node.ahead, 1, 200
      if node.name == '*' then look_ahead(node.read, now) end
    end
    if not node.read[node.at] then return insert(over, node.name) end
    node.line, node.score = node.read[node.at], tonumber(node.read[node.at + 1])
    node.second = tonumber(node.read[node.at + 3])
    push(node)
  end
  local function source(name) stand({name = name, skip = 0, at = -1, ahead = name == '*' and 200 or 1, read = {}, over = {}}) end
  local names = call('SRANDMEMBER', '@freed', 1000)
  table.sort(names)
  for _, name in ipairs(names) do
    if sub(name, 1, 1) == 'h' and not release_held(sub(name, 2), 1000) then insert(over, name) end
  end
  source('*')
  for _, name in ipairs(names) do
    if sub(name, 1, 1) ~= 'h' and name ~= '*' then source(name) end
  end
  while top() and passed < limit and looked < 2000 do
    local node = pop()
    local queue = string.match(node.line, '^[^%z]*')
    looked = looked + 1
    if shunned and (shunned[queue] or shunned[node.line]) and node.skip < 100 then
      node.skip = node.skip + 1
    elseif room(node.name, now) > 0 then
      local bound = node.second
      if top() and (not bound or top().score < bound) then bound = top().score end
      passed = passed + look(node, bound, limit - passed, now)
    end
    stand(node)
  end
  while top() do settle(pop()) end
  many('HDEL', '@lines', gone)
  for at = 1, #emptied, 4000 do call('UNLINK', unpack(emptied, at, min(at + 3999, #emptied))) end
  emptied = {}
  let_in(now)
  many('SREM', '@freed', over)
  return passed
end

-- Available jobs of one queue that have passed are blocked again: their gates are free for others. What to `block` in the end.
local function take_back(queue, ids, now)
  local jobs, taken = {}, {}
  local dyns, known = gather('HMGET', DYN, ids), gatings(ids)
  local sides = {}
  for i, id in ipairs(ids) do
    local suspect = dyns[i] and unpacked(dyns[i])[6] or false
    local score = call('ZSCORE', key_of(queue, suspect), id)
    if score and known[i] then
      under(sides, suspect, id)
      insert(taken, id)
      insert(jobs, {id, queue, score, known[i]})
    else
      call('ZREM', '@admitted:' .. queue, id)
    end
  end
  for suspect, some in pairs(sides) do take_ready(queue, suspect, some) end
  leave(taken, false, now)
  return jobs
end

local function back_to_wait(jobs)
  block(jobs)
  line_up(jobs)
end

-- Wake whoever sleeps and may claim what has passed and was not claimed here.
local function wake(channels)
  for queue in pairs(entered) do
    if call('ZSCORE', '@ready', queue) or call('ZSCORE', '@suspect', queue) then redis.pcall('PUBLISH', channels .. 'wake', queue) end
  end
end

-- When there is something to admit: now, later (a stamp), or false.
local function next_opening(now)
  if call('EXISTS', '@freed') == 1 then return now end
  local first = call('ZRANGE', '@opens', 0, 0, 'WITHSCORES')
  return first[2] and tonumber(first[2]) or false
end

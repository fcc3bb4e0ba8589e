-- Which jobs a want takes.

-- Merge the heads of several queues: the *limit* most urgent of all. A heap of [score, id, queue] by score, and of each
-- queue a few jobs read ahead, so that the cost goes with the limit, not with what waits in how many queues.
local function merged(queues, suspect, limit, most)
  local ahead = max(2, math.ceil(2 * limit / #queues))
  local heap, size = {}, 0
  local function sink(at)
    local node = heap[at]
    while true do
      local child = 2 * at
      if child > size then break end
      if child < size and heap[child + 1].score < heap[child].score then child = child + 1 end
      if heap[child].score >= node.score then break end
      heap[at] = heap[child]
      at = child
    end
    heap[at] = node
  end
  local function advance(node)
    node.at = node.at + 2
    if node.at > #node.read then
      if #node.read < 2 * ahead then return false end
      node.from = node.from + ahead
      node.read = call('ZRANGE', node.key, node.from, node.from + ahead - 1, 'WITHSCORES')
      node.at = 1
      if #node.read == 0 then return false end
    end
    node.score = tonumber(node.read[node.at + 1])
    return true
  end
  for _, queue in ipairs(queues) do
    local key = key_of(queue, suspect)
    local node = {key = key, queue = queue, from = 0, at = -1, read = call('ZRANGE', key, 0, ahead - 1, 'WITHSCORES')}
    if #node.read > 0 then
      advance(node)
      size = size + 1
      heap[size] = node
    end
  end
  for at = floor(size / 2), 1, -1 do sink(at) end
  local picked = {}
  while size > 0 and #picked < limit do
    local node = heap[1]
    insert(picked, {node.read[node.at], node.read[node.at + 1], node.queue})
    local left = most and most[node.queue]
    if left then most[node.queue] = left - 1 end
    if left ~= 1 and advance(node) then
      sink(1)
    else
      heap[1] = heap[size]
      heap[size] = nil
      size = size - 1
      if size > 0 then sink(1) end
    end
  end
  return picked
end

-- The queues of *want* that may be claimed from now: not those that are *paused*, or may not start any; where it names none, as many as can have the first *limit* jobs.
local function queues_of(want, paused)
  local found, seen = {}, {}
  if want.queues then
    for _, queue in ipairs(want.queues) do
      if not seen[queue] and not paused[queue] then
        seen[queue] = true
        insert(found, queue)
      end
    end
    return found
  end
  local last = want.limit - 1 + #want.exclude
  for _, queue in ipairs(want.exclude) do seen[queue] = true end
  for _ in pairs(paused) do last = last + 1 end
  for _, queue in ipairs(call('ZRANGE', P .. (want.suspects and 'suspect' or 'ready'), 0, last)) do
    if not seen[queue] and not paused[queue] and #found < want.limit then insert(found, queue) end
  end
  return found
end

-- The one job *id*, if it is available.
local function by_name(id)
  local record = call('HGET', JOB, id)
  if not record then return {} end
  local queue = head(record)[1]
  for _, suspect in ipairs({false, true}) do
    local score = call('ZSCORE', key_of(queue, suspect), id)
    if score then return {{id, score, queue, suspect}, named = id} end
  end
  return {}
end

-- [id, score, queue, suspect] each of what *want* takes, most urgent first; from some queues *most* (queue -> number, counted down).
local function pick(want, paused, most)
  if want.id then return by_name(want.id) end
  if want.limit <= 0 then return {} end
  local queues = queues_of(want, paused)
  if #queues == 0 then return {} end
  local picked
  if #queues == 1 then
    local limit = min(want.limit, most and most[queues[1]] or want.limit)
    local read = call('ZRANGE', key_of(queues[1], want.suspects), 0, limit - 1, 'WITHSCORES')
    picked = {}
    if most and most[queues[1]] then most[queues[1]] = most[queues[1]] - #read / 2 end
    for at = 1, #read, 2 do picked[(at + 1) / 2] = {read[at], read[at + 1], queues[1]} end
  else
    picked = merged(queues, want.suspects, want.limit, most)
  end
  for _, one in ipairs(picked) do one[4] = want.suspects end
  return picked
end

-- Whether suspects wait in the queues of *wants*.
local function suspects_wait(wants, paused)
  if call('EXISTS', '@suspect') == 0 then return false end
  for _, want in ipairs(wants) do
    for _, queue in ipairs(queues_of({queues = want.queues, exclude = want.exclude, suspects = true, limit = 1}, paused)) do
      if call('ZSCORE', '@suspect', queue) then return true end
    end
  end
  return false
end

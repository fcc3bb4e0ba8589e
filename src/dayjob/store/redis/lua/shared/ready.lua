-- Into and out of the order in which jobs are claimed.

local function key_of(queue, suspect) return P .. (suspect and 'suspect:' or 'ready:') .. queue end

-- Into a queue: *members* is score, id, score, id ...
local function make_ready(queue, suspect, members)
  many('ZADD', key_of(queue, suspect), members)
  call('SADD', P .. (suspect and 'suspect' or 'ready'), queue)
end

-- Out of a queue; a queue without jobs is forgotten.
local function take_ready(queue, suspect, ids)
  local key = key_of(queue, suspect)
  many('ZREM', key, ids)
  if call('EXISTS', key) == 0 then call('SREM', P .. (suspect and 'suspect' or 'ready'), queue) end
end

-- The first *number* out of a queue, or only the job *named*.
local function take_first(queue, suspect, number, named)
  if named then return take_ready(queue, suspect, {named}) end
  local key = key_of(queue, suspect)
  call('ZREMRANGEBYRANK', key, 0, number - 1)
  if call('EXISTS', key) == 0 then call('SREM', P .. (suspect and 'suspect' or 'ready'), queue) end
end

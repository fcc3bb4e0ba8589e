-- The order in which jobs are claimed; `lanes` has the doors to it.

local function key_of(queue, suspect) return P .. (suspect and 'suspect:' or 'ready:') .. queue end

-- Into a queue: *members* is score, id, score, id ...; scores that are numbers rise, those in digits come in any order.
local function put_ready(queue, suspect, members)
  many('ZADD', key_of(queue, suspect), members)
  local first = members[1]
  if type(first) == 'string' then
    for at = 3, #members, 2 do
      if tonumber(members[at]) < tonumber(first) then first = members[at] end
    end
  end
  call('ZADD', P .. (suspect and 'suspect' or 'ready'), 'LT', first, queue)
end

-- A queue of which something was taken stands where its first job stands; one without jobs is forgotten.
local function set_right(queue, suspect)
  local first = call('ZRANGE', key_of(queue, suspect), 0, 0, 'WITHSCORES')
  if first[2] then
    call('ZADD', P .. (suspect and 'suspect' or 'ready'), first[2], queue)
  else
    call('ZREM', P .. (suspect and 'suspect' or 'ready'), queue)
  end
end

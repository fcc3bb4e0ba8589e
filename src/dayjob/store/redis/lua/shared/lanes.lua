-- The doors of a queue: who comes in stands in its lane, or waits at its gates; who goes leaves both.
local firsts, lasts = {}, {}

local function priority_of(score) return 0 - floor(score / LEVEL) end

local function lane_of(queue, priority, gating)
  return gating and gating[2] and #gating[4] == 0 and '@lane:' .. queue .. '\0' .. priority .. '\0' .. gating[2]
end

-- The place of a new job of a lane: one turn behind the last of it, not before the first of its queue.
local function by_turn(lane, queue, priority, weight, usual)
  local name = queue .. '\0' .. priority
  if firsts[name] == nil then
    local first = call('ZRANGEBYSCORE', key_of(queue, false), digits(-priority * LEVEL),
      '(' .. digits((1 - priority) * LEVEL), 'WITHSCORES', 'LIMIT', 0, 1)
    firsts[name] = first[2] and place_of(tonumber(first[2])) or false
  end
  while lasts[lane] == nil do
    local last = call('ZREVRANGE', lane, 0, 0, 'WITHSCORES')
    lasts[lane] = tonumber(last[2]) or false
    if last[1] and not call('ZSCORE', key_of(queue, false), last[1]) then
      call('ZREM', lane, last[1])  -- a worker of an older release took it
      lasts[lane] = nil
    end
  end
  local place = usual
  if firsts[name] or lasts[lane] then
    place = max(firsts[name] or 0, lasts[lane] and lasts[lane] + max(1, floor(TURN / weight)) or 0)
  end
  firsts[name] = firsts[name] or place
  lasts[lane] = place
  return place
end

-- Jobs come in with scores: *members* is score, id, score, id ... . Who has gates is blocked; who has a lane stands in it, by
-- its turn if the score is not one that it is to *keep*. *known* is GATING of each, if that was read.
local function make_ready(queue, suspect, members, keep, known)
  if not GATED then return put_ready(queue, suspect, members) end
  local ids, ready, blocked, held = {}, {}, {}, {}
  for at = 2, #members, 2 do ids[at / 2] = members[at] end
  known = known or gatings(ids)
  local later = held_later(queue, ids)
  for at = 1, #members, 2 do
    local score, id, gating = members[at], members[at + 1], known[(at + 1) / 2]
    if later[(at + 1) / 2] == 1 then
      insert(held, {id, queue, type(score) == 'number' and digits(score) or score})
    elseif gating and #gating[4] > 0 then
      insert(blocked, {id, queue, type(score) == 'number' and digits(score) or score, gating})
    else
      local number = tonumber(score)
      local priority = priority_of(number)
      local lane = not suspect and lane_of(queue, priority, gating)
      if lane then
        if not keep then
          number = by_turn(lane, queue, priority, gating[3], place_of(number)) - priority * LEVEL
          score = digits(number)
        end
        call('ZADD', lane, digits(place_of(number)), id)
      end
      insert(ready, type(score) == 'number' and digits(score) or score)
      insert(ready, id)
    end
  end
  if #ready > 0 then put_ready(queue, suspect, ready) end
  block(blocked)
  hold(queue, held)
  line_up(blocked)
end

-- What waited behind the doors is gone from there: out of the lanes, and no more among those that passed.
local function forget_ready(queue, ids, scores, known)
  if not GATED then return end
  local passed = {}
  for i, gating in ipairs(known or gatings(ids)) do
    if gating and #gating[4] > 0 then
      insert(passed, ids[i])
    elseif gating and gating[2] and scores[i] then
      call('ZREM', lane_of(queue, priority_of(tonumber(scores[i])), gating), ids[i])
    end
  end
  many('ZREM', '@admitted:' .. queue, passed)
  if #passed > 0 and call('EXISTS', '@admitted:' .. queue) == 0 then call('SREM', '@admitted', queue) end
end

-- Out of a queue.
local function take_ready(queue, suspect, ids)
  if GATED then forget_ready(queue, ids, gather('ZMSCORE', key_of(queue, suspect), ids)) end
  firsts, lasts = {}, {}  -- they may have been first and last
  many('ZREM', key_of(queue, suspect), ids)
  set_right(queue, suspect)
end

-- The first *number* out of a queue, or only the job *named*.
local function take_first(queue, suspect, number, named)
  if named then
    call('ZREM', key_of(queue, suspect), named)
  else
    call('ZREMRANGEBYRANK', key_of(queue, suspect), 0, number - 1)
  end
  set_right(queue, suspect)
end

-- Make due jobs available, and cancel those that expired before they started.
-- Uses: base leads room jobs ready gating lanes exits stage cancel
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock  2 the leader's term  3 how many at most
-- Returns  nothing for a stale term, else how many were touched, and when the next is due, or empty
local now = tonumber(ARGV[1]) or clock()
local limit = tonumber(ARGV[3])
local jobs, states, scores, queues = {}, {}, {}, {}
local ids, others = call('ZRANGEBYSCORE', EXPIRES, '-inf', digits(now), 'LIMIT', 0, limit), {}
local records, dyns = gather('HMGET', JOB, ids), gather('HMGET', DYN, ids)
for i, id in ipairs(ids) do
  local h = records[i] and head(records[i])
  local d = h and (dyns[i] and unpacked(dyns[i]) or fresh(h))
  local state, score
  if h then state, score = standing(id, h, d) end
  if state and state ~= 'running' then
    insert(jobs, {id, h, d})
    states[#jobs], scores[#jobs] = state, score or false
    queues[h[1]] = (queues[h[1]] or 0) + 1
  else
    insert(others, id)
  end
end
many('ZREM', EXPIRES, others)  -- or the next call would read them again
if #jobs > 0 then
  cancel_waiting(jobs, states, scores, 'expired', 86400000000, now)
  for queue, count in pairs(queues) do add_tally(now, queue, 'cancelled', count) end
end
local staged = stage(now, limit - #jobs)
return {staged + #jobs, next_due() or ''}

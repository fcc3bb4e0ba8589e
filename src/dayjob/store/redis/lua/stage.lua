-- Make due jobs available, and cancel those that expired before they started.
-- Uses: base leads room jobs ready stage exits cancel
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock  2 the leader's term  3 how many at most
-- Returns  nothing for a stale term, else how many were touched, and when the next is due, or empty
local now = tonumber(ARGV[1]) or clock()
local limit = tonumber(ARGV[3])
local jobs, states, scores, queues = {}, {}, {}, {}
local from = 0
while #jobs < limit do
  local ids = call('ZRANGEBYSCORE', EXPIRES, '-inf', digits(now), 'LIMIT', from, limit)
  local records, dyns = gather('HMGET', JOB, ids), gather('HMGET', DYN, ids)
  for i, id in ipairs(ids) do
    if records[i] and #jobs < limit then
      local h = head(records[i])
      local d = dyns[i] and unpacked(dyns[i]) or fresh(h)
      local state, score = standing(id, h, d)
      if state == 'scheduled' or state == 'available' then
        insert(jobs, {id, h, d})
        states[#jobs], scores[#jobs] = state, score or false
        queues[h[1]] = (queues[h[1]] or 0) + 1
      end
    end
  end
  if #ids < limit then break end
  from = from + limit
end
if #jobs > 0 then
  cancel_waiting(jobs, states, scores, 'expired', 86400000000, now)
  for queue, count in pairs(queues) do add_tally(now, queue, 'cancelled', count) end
end
local staged = stage(now, limit - #jobs)
return {staged + #jobs, next_due() or ''}

-- Give up the workers whose live time ran out, and take their jobs from them.
-- Uses: base leads room jobs ready gating lanes exits
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock  2 the leader's term  3 half the lease that counts, in microseconds
--       4 how many jobs at most, about: a batch is taken whole
-- Returns  nothing for a stale term, else 1 when there is more to take, and in pairs [worker's id, last beat, jobs] and what
--          the worker said of itself
local now = tonumber(ARGV[1]) or clock()
local cluster = call('HMGET', META, 'live', 'beat_at')
local live = tonumber(cluster[1] or 0) + min(max(0, now - tonumber(cluster[2] or 0)), tonumber(ARGV[3]))
local over = {}
local rows = call('HGETALL', '@worker')
for at = 1, #rows, 2 do
  local known = unpacked(rows[at + 1])
  if known[6] < 0 or (known[6] == 0 and known[5] <= live) then insert(over, rows[at]) end
end
local left, gone, more = tonumber(ARGV[4]), {0}, false
for _, id in ipairs(over) do
  if left <= 0 then
    gone[1] = 1
    break
  end
  local told
  told, more = give_up(id, 'no beat before its lease ran out', now, false, left)
  left = left - 1 - #told[3]  -- one without jobs costs something, too
  if more then gone[1] = 1 end
  insert(gone, pack(told))
  insert(gone, call('HGET', '@info', id) or '')
end
return gone

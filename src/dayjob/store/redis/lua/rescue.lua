-- Give up the workers whose live time ran out, and take their jobs from them.
-- Uses: base leads room jobs ready exits
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock  2 the leader's term  3 half the lease that counts, in microseconds
-- Returns  nothing for a stale term, else in pairs [worker's id, last beat, jobs] and what the worker said of itself
local now = tonumber(ARGV[1]) or clock()
local cluster = call('HMGET', META, 'live', 'beat_at')
local live = tonumber(cluster[1] or 0) + min(max(0, now - tonumber(cluster[2] or 0)), tonumber(ARGV[3]))
local over = {}
local rows = call('HGETALL', '@worker')
for at = 1, #rows, 2 do
  local known = unpacked(rows[at + 1])
  if known[6] == 0 and known[5] <= live then insert(over, rows[at]) end
end
local gone = {}
for _, id in ipairs(over) do
  insert(gone, pack(give_up(id, 'no beat before its lease ran out', now, false)))
  insert(gone, call('HGET', '@info', id) or '')
end
return gone

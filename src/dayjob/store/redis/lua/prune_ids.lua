-- Delete some finished jobs.
-- Uses: base leads jobs ready gating lanes exits finished
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock  2 the leader's term  3 ids
--       4 when they were listed: who has finished since then did so again, and stays
-- Returns  nothing for a stale term, else how many went
local now, listed_at = tonumber(ARGV[1]) or clock(), tonumber(ARGV[4])
local ids, over = unpacked(ARGV[3]), {}
local ends = gather('HMGET', END, ids)
for i, id in ipairs(ids) do
  if ends[i] and ending(ends[i])[4] <= listed_at then insert(over, id) end
end
return forget_finished(over, now, false)

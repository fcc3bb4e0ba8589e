-- Delete some finished jobs.
-- Uses: base leads jobs ready exits finished
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock  2 the leader's term  3 ids
-- Returns  nothing for a stale term, else how many went
local now = tonumber(ARGV[1]) or clock()
return forget_finished(unpacked(ARGV[3]), now, false)

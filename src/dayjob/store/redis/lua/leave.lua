-- A worker is over: its jobs go back.
-- Uses: base room jobs ready gating lanes exits
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock  2 the worker  3 how its process died, empty for an orderly end
--       4 how many jobs at most, about: a batch is taken whole
-- Returns  nothing when the store knows no such worker, else 1 when there is more to take, [worker's id, last beat, jobs], and
--          what it said of itself
local now = tonumber(ARGV[1]) or clock()
local row = call('HGET', '@worker', ARGV[2])
local death = ARGV[3] ~= '' and ARGV[3] or false
local lost_at = row and unpacked(row)[6]
if not row or lost_at > 0 or (lost_at < 0 and not death) then return false end
local info = call('HGET', '@info', ARGV[2])
local told, more = give_up(ARGV[2], death, now, not death, tonumber(ARGV[4]))
return {more and 1 or 0, pack(told), info}

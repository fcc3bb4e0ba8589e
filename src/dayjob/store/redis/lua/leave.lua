-- A worker is over: its jobs go back.
-- Uses: base room jobs ready exits
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock  2 the worker  3 how its process died, empty for an orderly end
-- Returns  nothing when the store knows no such worker, else [worker's id, last beat, jobs] and what it said of itself
local now = tonumber(ARGV[1]) or clock()
local row = call('HGET', '@worker', ARGV[2])
if not row or unpacked(row)[6] ~= 0 then return false end
local info = call('HGET', '@info', ARGV[2])
local death = ARGV[3] ~= '' and ARGV[3] or false
return {pack(give_up(ARGV[2], death, now, not death)), info}

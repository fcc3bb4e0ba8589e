-- Delete a record.
-- Uses: base
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 kind  2 key  3 the version expected, empty for any
-- Returns  1 when there was one
local kind, key = '@record:' .. ARGV[1], ARGV[2]
local old = call('HGET', kind, key)
if not old then return 0 end
local _, known = unpack_one(old)
if ARGV[3] ~= '' and tonumber(ARGV[3]) ~= known[1] then return 0 end
call('HDEL', kind, key)
call('ZREM', '@expiring', ARGV[1] .. '\0' .. key)
if call('EXISTS', kind) == 0 then call('SREM', '@kinds', ARGV[1]) end
return 1

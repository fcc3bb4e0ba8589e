-- Write a record over the version that is expected.
-- Uses: base
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock  2 kind  3 key  4 value
--       5 the version expected, 0 for none, empty for any  6 how long it lives in microseconds, empty for ever
-- Returns  the new version, or nothing when another was found
local now = tonumber(ARGV[1]) or clock()
local kind, key = '@record:' .. ARGV[2], ARGV[3]
local old = call('HGET', kind, key)
local version = 0
if old then
  local _, meta = unpack_one(old)
  if meta[2] == 0 or meta[2] > now then version = meta[1] end
end
if ARGV[5] ~= '' and tonumber(ARGV[5]) ~= version then return false end
local over = ARGV[6] ~= '' and now + tonumber(ARGV[6]) or 0
call('HSET', kind, key, pack({version + 1, over}) .. ARGV[4])
call('SADD', '@kinds', ARGV[2])
local member = ARGV[2] .. '\0' .. key
if over > 0 then
  call('ZADD', '@expiring', digits(over), member)
elseif old then
  call('ZREM', '@expiring', member)
end
return version + 1

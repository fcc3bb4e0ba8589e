-- Give back what `take` took.
-- Uses: base room jobs ready gating
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock  2 the holder
-- Returns  1, or 0 when the holder had nothing any more
local now, holder = tonumber(ARGV[1]) or clock(), ARGV[2]
local text = call('HGET', '@taker', holder)
if not text then return 0 end
local has = unpacked(text)
local named, freed = {}, {}
for _, name in ipairs(has[2]) do
  call('ZREM', '@token:' .. name, '\0' .. holder)
  named[name], freed[name] = {false, 0}, true
end
call('HDEL', '@taker', holder)
call('ZREM', '@taken', holder)
name_gates(named, now)
free(freed)
return has[1] > now and 1 or 0

-- Read records of a kind.
-- Uses: base
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock  2 kind  3 "1": only the key that follows; else some, from the cursor that follows
--       4 the key or the cursor, "0" at first
-- Returns  now, the next cursor ("0" at the end), and a list of key, [version, expires_at or 0] with the value behind it, of each
local now = digits(tonumber(ARGV[1]) or clock())
if ARGV[3] == '1' then
  local value = call('HGET', '@record:' .. ARGV[2], ARGV[4])
  return {now, '0', value and {ARGV[4], value} or {}}
end
local some = call('HSCAN', '@record:' .. ARGV[2], ARGV[4], 'COUNT', 500)
return {now, some[1], some[2]}

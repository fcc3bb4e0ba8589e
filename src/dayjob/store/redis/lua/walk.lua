-- Read jobs along their ids, newest first.
-- Uses: base jobs rows
--
-- KEYS  1 meta
-- ARGV  1 below this id, or empty  2 how many at most
-- Returns  the last id looked at, empty at the end, and `rows`
local from = ARGV[1] == '' and '+' or '(' .. ARGV[1]
local ids = call('ZREVRANGEBYLEX', IDS, from, '-', 'LIMIT', 0, ARGV[2])
return {#ids == tonumber(ARGV[2]) and ids[#ids] or '', rows(ids)}

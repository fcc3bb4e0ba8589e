-- Read jobs along their ids, newest first.
-- Uses: base jobs rows
--
-- KEYS  1 meta
-- ARGV  1 below this id, or empty  2 how many at most  3 bytes after which it stops
-- Returns  the last id looked at, empty at the end, and `rows`
local from = ARGV[1] == '' and '+' or '(' .. ARGV[1]
local ids = call('ZREVRANGEBYLEX', IDS, from, '-', 'LIMIT', 0, ARGV[2])
local came, found = some_rows(ids, tonumber(ARGV[3]))
return {(came < #ids or #ids == tonumber(ARGV[2])) and ids[came] or '', found}

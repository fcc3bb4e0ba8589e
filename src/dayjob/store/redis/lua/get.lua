-- Read jobs by their ids.
-- Uses: base jobs rows
--
-- KEYS  1 meta
-- ARGV  1 bytes after which it stops  2... ids
-- Returns  how many of the ids it came to, and `rows` of those that exist
return {some_rows({unpack(ARGV, 2)}, tonumber(ARGV[1]))}

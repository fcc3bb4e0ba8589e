-- Read jobs by their ids.
-- Uses: base jobs rows
--
-- KEYS  1 meta
-- ARGV  1... ids
-- Returns  `rows` of those that exist
return rows(ARGV)

-- The finished jobs of one task among those of a state and queue, oldest first, without those that were moved away.
-- Uses: base jobs
--
-- KEYS  1 meta
-- ARGV  1 the state  2 the queue  3 the task  4 how many to pass over  5 how many at most
-- Returns  how many it looked at, and id, when it finished, of each
local from = tonumber(ARGV[4])
local listed = call('ZRANGE', '@end:' .. ARGV[1] .. ':' .. ARGV[2], from, from + tonumber(ARGV[5]) - 1, 'WITHSCORES')
local ids, found = {}, {}
for at = 1, #listed, 2 do ids[(at + 1) / 2] = listed[at] end
for i, record in ipairs(gather('HMGET', JOB, ids)) do
  if record and head(record)[6] == ARGV[3] and tonumber(listed[2 * i]) < AWAY then
    insert(found, ids[i])
    insert(found, listed[2 * i])
  end
end
return {#ids, found}

-- Begin the namespace, unless somebody has. Where jobs are in it already, somebody has deleted `meta`: all goes on.
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 the schema's version
-- Returns  the version found, 0 when it was begun here
local found = redis.call('HGET', KEYS[1], 'schema')
if found then return tonumber(found) end
local anew = redis.call('EXISTS', '@job') == 1
redis.call('HSET', KEYS[1], 'schema', ARGV[1])
for _, name in ipairs({'dyn', 'run', 'end'}) do
  redis.call('HSET', '@' .. name, '', string.rep(' ', 65))
end
if anew then
  -- Entries and terms go on above those that were given: as if there had been 1,000 and one each second, since 1970.
  local seconds = redis.call('TIME')[1]
  redis.call('HSET', KEYS[1], 'entry', seconds .. '000', 'term', seconds)
  -- Live time begins at 0: a worker has a minute of it to beat, or is given up.
  local rows = redis.call('HGETALL', '@worker')
  for at = 1, #rows, 2 do
    local known = cmsgpack.unpack(rows[at + 1])
    known[5] = 60000000
    redis.call('HSET', '@worker', rows[at], cmsgpack.pack(known))
  end
end
return 0

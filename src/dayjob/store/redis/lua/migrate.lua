-- Begin the namespace, unless somebody has.
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 the schema's version
-- Returns  the version found, 0 when it was begun here
local found = redis.call('HGET', KEYS[1], 'schema')
if not found then
  redis.call('HSET', KEYS[1], 'schema', ARGV[1])
  for _, name in ipairs({'dyn', 'run', 'end'}) do
    redis.call('HSET', '@' .. name, '', string.rep(' ', 65))
  end
end
return tonumber(found or '0')

-- The ids of jobs in a state, oldest first as far as it has an order.
-- Uses: base
--
-- KEYS  1 meta
-- ARGV  1 the state  2 the queue, or empty for all  3 how many to pass over  4 how many at most
-- Returns  ids
local state, queue, from, count = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if state == 'scheduled' then return call('ZRANGE', DUE, from, from + count - 1) end
local found = {}
if state == 'running' then
  local ids = call('HKEYS', RUN)
  table.sort(ids)
  if ids[1] == '' then table.remove(ids, 1) end
  for at = from + 1, min(from + count, #ids) do insert(found, ids[at]) end
  return found
end
local keys = {}
if state == 'blocked' then
  for _, name in ipairs(queue ~= '' and {queue} or call('SMEMBERS', '@blocked')) do insert(keys, '@blocked:' .. name) end
elseif state == 'available' then
  for _, kind in ipairs({'ready', 'suspect'}) do
    for _, name in ipairs(queue ~= '' and {queue} or call('ZRANGE', P .. kind, 0, -1)) do
      insert(keys, P .. kind .. ':' .. name)
    end
  end
else
  for _, name in ipairs(call('SMEMBERS', '@ends')) do
    if name == state .. ':' .. queue or (queue == '' and sub(name, 1, #state + 1) == state .. ':') then
      insert(keys, '@end:' .. name)
    end
  end
end
table.sort(keys)
for _, key in ipairs(keys) do
  local size = call('ZCARD', key)
  if from >= size then
    from = from - size
  else
    for _, id in ipairs(call('ZRANGE', key, from, from + count - #found - 1)) do insert(found, id) end
    from = 0
    if #found >= count then break end
  end
end
return found

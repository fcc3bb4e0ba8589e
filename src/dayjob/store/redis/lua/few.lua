-- The ids of all jobs in some states, as one moment shows them: a job that moves between these is in it once.
-- Uses: base
--
-- KEYS  1 meta
-- ARGV  1 the queue, or empty for all; scheduled and running ones come of all  2 how many at most  3... the states
-- Returns  the ids; nothing when there are more
local queue, left = ARGV[1], tonumber(ARGV[2])
local keys, found = {}, {}
local function look(key)
  left = left - call('ZCARD', key)
  insert(keys, key)
end
for at = 3, #ARGV do
  local state = ARGV[at]
  if state == 'scheduled' then
    look(DUE)
  elseif state == 'running' then
    left = left - call('HLEN', RUN) + call('HEXISTS', RUN, '')
  elseif state == 'blocked' then
    for _, name in ipairs(queue ~= '' and {queue} or call('SMEMBERS', '@blocked')) do look('@blocked:' .. name) end
  elseif state == 'available' then
    for _, kind in ipairs({'ready', 'suspect'}) do
      for _, name in ipairs(queue ~= '' and {queue} or call('ZRANGE', P .. kind, 0, left)) do
        look(P .. kind .. ':' .. name)
      end
    end
  else
    for _, name in ipairs(call('SMEMBERS', '@ends')) do
      if name == state .. ':' .. queue or (queue == '' and sub(name, 1, #state + 1) == state .. ':') then
        look('@end:' .. name)
      end
    end
  end
  if left < 0 then return false end
end
for _, key in ipairs(keys) do
  for _, id in ipairs(call('ZRANGE', key, 0, -1)) do insert(found, id) end
end
for at = 3, #ARGV do
  if ARGV[at] == 'running' then
    for _, id in ipairs(call('HKEYS', RUN)) do
      if id ~= '' then insert(found, id) end
    end
  end
end
return found

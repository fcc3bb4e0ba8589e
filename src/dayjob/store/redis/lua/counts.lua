-- How many jobs each queue holds, by state.
-- Uses: base jobs
--
-- KEYS  1 meta
-- ARGV  1 "1": with the oldest available job of each queue
-- Returns  [[queue, state, count], ...] and [[queue, since when its oldest available job waits], ...]
local found, oldest = {}, {}
local waiting = {}
for _, kind in ipairs({'ready', 'suspect'}) do
  for _, queue in ipairs(call('ZRANGE', P .. kind, 0, -1)) do
    waiting[queue] = (waiting[queue] or 0) + call('ZCARD', P .. kind .. ':' .. queue)
    -- The first of each priority: the rest of it waits behind that one. Suspects wait for what runs alone: they do not count.
    local key = P .. kind .. ':' .. queue
    local after = '-inf'
    while ARGV[1] == '1' and kind == 'ready' do
      local first = call('ZRANGEBYSCORE', key, after, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
      if #first == 0 then break end
      local record, d = call('HGET', JOB, first[1]), call('HGET', DYN, first[1])
      if record then
        local h = head(record)
        local since = max(h[3], d and unpacked(d)[8] or h[4])
        oldest[queue] = min(oldest[queue] or since, since)
      end
      after = digits((floor(tonumber(first[2]) / LEVEL) + 1) * LEVEL)
    end
  end
end
for queue, count in pairs(waiting) do insert(found, {queue, 'available', count}) end
for _, queue in ipairs(meta[2] and call('SMEMBERS', '@blocked') or {}) do
  insert(found, {queue, 'blocked', call('ZCARD', '@blocked:' .. queue)})
end
local depths = call('HGETALL', DEPTH)
for at = 1, #depths, 2 do
  local state = sub(depths[at], 1, 1) == 's' and 'scheduled' or 'running'
  insert(found, {sub(depths[at], 2), state, tonumber(depths[at + 1])})
end
for _, name in ipairs(call('SMEMBERS', '@ends')) do
  local colon = find(name, ':', 1, true)
  insert(found, {sub(name, colon + 1), sub(name, 1, colon - 1), call('ZCARD', '@end:' .. name)})
end
local since = {}
for queue, at in pairs(oldest) do insert(since, {queue, at}) end
return {pack(found), pack(since)}

-- Write down the depth of each queue for this minute, but of the deepest alone where there are many: memory keeps it a week.
-- Uses: base leads jobs
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock  2 the leader's term  3 how many depths at most
-- Returns  nothing for a stale term, else 1
local now = tonumber(ARGV[1]) or clock()
local minute = digits(now - now % 60000000)
local depths, values, waiting = {}, {}, {}
for _, kind in ipairs({'ready', 'suspect'}) do
  for _, queue in ipairs(call('ZRANGE', P .. kind, 0, -1)) do
    waiting[queue] = (waiting[queue] or 0) + call('ZCARD', P .. kind .. ':' .. queue)
  end
end
local function add(state, queue, count) insert(depths, {count, 'depth:' .. state .. '\0' .. queue}) end
for queue, count in pairs(waiting) do add('available', queue, count) end
for _, queue in ipairs(meta[2] and call('SMEMBERS', '@blocked') or {}) do
  add('blocked', queue, call('ZCARD', '@blocked:' .. queue))
end
local others = call('HGETALL', DEPTH)
for at = 1, #others, 2 do
  add(sub(others[at], 1, 1) == 's' and 'scheduled' or 'running', sub(others[at], 2), tonumber(others[at + 1]))
end
table.sort(depths, function(a, b)
  if a[1] ~= b[1] then return a[1] > b[1] end
  return a[2] < b[2]
end)
for at = 1, min(#depths, tonumber(ARGV[3])) do
  insert(values, depths[at][2])
  insert(values, depths[at][1])
end
if #values > 0 then
  many('HSET', '@sample:' .. minute, values)
  call('ZADD', '@samples', minute, minute)
end
return 1

-- Workers that are not given up.
-- Uses: base
--
-- KEYS  1 meta
-- ARGV  none
-- Returns  [id, started_at, last beat, leads, jobs held] and what it says of itself, of each
local leader = call('HGET', META, 'leader')
local found = {}
local rows = call('HGETALL', '@worker')
for at = 1, #rows, 2 do
  local id, known = rows[at], unpacked(rows[at + 1])
  if known[6] == 0 then
    local held = 0
    for _, left in ipairs(call('HVALS', '@left:' .. id)) do held = held + tonumber(left) end
    insert(found, pack({id, known[3], known[4], leader == id, held}))
    insert(found, call('HGET', '@info', id) or '')
  end
end
return found

-- A token of each of some gates for a holder that is no job, all or none.
-- Uses: base jobs ready gating lanes exits limits admit
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock  2 the holder  3 gates, as in GATING  4 for how long, in microseconds
-- Returns  nothing when it has them, else the microseconds after which to ask again, 0 when nobody can tell
local now, holder, gates, over = tonumber(ARGV[1]) or clock(), ARGV[2], unpacked(ARGV[3]), tonumber(ARGV[4])
local member = '\0' .. holder
local text = call('HGET', '@taker', holder)
local has = text and unpacked(text)
if has and has[1] > now then  -- its time counts anew; of a rate, a start is a start
  for _, name in ipairs(has[2]) do
    if sub(name, 1, 1) ~= 'r' then call('ZADD', '@token:' .. name, 'XX', digits(GUEST + now + over), member) end
  end
  call('HSET', '@taker', holder, pack({now + over, has[2]}))
  call('ZADD', '@taken', digits(now + over), holder)
  return false
end

local shut, wait = false, 0
for _, gate in ipairs(gates) do
  local name = name_of(gate)
  local known = gate_of(name)
  local limit = known[4] or gate[3]
  local free_, at
  if known[6] > now or sub(name, 1, 1) == 'b' then
    free_, at = look_at(name, now)
  else
    local taken = call('ZCARD', '@token:' .. name)
    if taken >= limit then
      known[2] = gate[4]
      taken = taken - purge(name, known, now)
    end
    free_ = limit - taken
    if free_ <= 0 then at = ends_at(name, known) end
  end
  if free_ <= 0 then
    shut = true
    if at then wait = max(wait, at - now) end
  end
end
if shut then return digits(wait) end

gated()
local names, named = {}, {}
for i, gate in ipairs(gates) do
  local name = name_of(gate)
  local kind = sub(name, 1, 1)
  names[i], named[name] = name, {gate, 0}
  if kind == 'r' then
    call('ZADD', '@token:' .. name, digits(now), member .. '\0' .. digits(now))
  else
    call('ZADD', '@token:' .. name, digits(GUEST + now + over), member)
    if call('EXISTS', '@wait:' .. name) == 1 then call('ZADD', '@opens', 'LT', digits(now + over), name) end
  end
end
call('HSET', '@taker', holder, pack({now + over, names}))
call('ZADD', '@taken', digits(now + over), holder)
name_gates(named, now)
return false

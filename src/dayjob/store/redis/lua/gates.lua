-- Gates as they stand.
-- Uses: base jobs gating
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock  2 how many waiting jobs are counted  3... names of gates
-- Returns  [name, limit, per, taken, waiting, when time opens it or false] of each of which a token is taken or where jobs wait
local now, most, found = tonumber(ARGV[1]) or clock(), tonumber(ARGV[2]), {}
for at = 3, #ARGV do
  local name = ARGV[at]
  local gate, key = gate_of(name), '@token:' .. name
  local limit, per = gate[4] or gate[1], gate[4] and gate[5] or gate[2]
  local taken, opens = call('ZCARD', key), false
  if sub(name, 1, 1) == 'r' then
    local low = '(' .. digits(now - floor(per * 1000000))
    taken = call('ZCOUNT', key, low, '+inf')
    if taken >= limit then
      local first = call('ZRANGEBYSCORE', key, low, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
      local stamp = tonumber(first[2])
      opens = stamp and stamp < GUEST and stamp + floor(per * 1000000) or false
    end
  else
    taken = taken - call('ZCOUNT', key, '(' .. digits(GUEST), digits(GUEST + now))
  end
  if gate[6] > now then opens = max(opens or 0, gate[6]) end
  local waiting = 0
  for _, line in ipairs(call('ZRANGE', '@wait:' .. name, 0, most)) do
    -- Of a strict lane only the first waits anywhere else than for its turn.
    waiting = min(most, waiting + ((strict(line) and line ~= '\0' .. name) and 1 or call('ZCARD', '@line:' .. line)))
    if waiting == most then break end
  end
  local lane = sub(name, 1, 1) == 'o' and call('HGET', '@lines', '\0' .. name)
  if lane and lane ~= name then
    local size = call('ZCARD', '@line:\0' .. name)
    waiting = min(most, lane == '*' and size or size - 1)
  end
  if taken > 0 or waiting > 0 then insert(found, pack({name, limit, per, taken, waiting, opens})) end
end
return found

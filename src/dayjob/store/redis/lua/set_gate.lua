-- Say how many tokens a gate has, or let nobody through for a time.
-- Uses: base room jobs ready gating lanes exits limits admit back
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock  2 the gate's name
--       3 [limit or false, per] over what its jobs say, or empty  4 for how long nobody passes, in microseconds, or empty
-- Returns  1
local now, name = tonumber(ARGV[1]) or clock(), ARGV[2]
gated()
local gate = gate_of(name)
if ARGV[3] ~= '' then
  local said = unpacked(ARGV[3])
  gate[4], gate[5] = said[1], said[2]
end
if ARGV[4] ~= '' then
  gate[6] = max(gate[6], now + tonumber(ARGV[4]))
  open_at(name, gate[6])
end
call('HSET', '@gate', name, pack(gate))
name_gates({[name] = {false, 0}}, now)
if gate[6] > now then call('ZADD', '@fades', 'NX', digits(gate[6]), name) end
free({[name] = true})

-- Of those that passed and do not run yet, as many as are too many now: the least urgent, and of these who came last.
local kind = sub(name, 1, 1)
purge(name, gate, now)
local excess = ARGV[3] ~= '' and (kind == 'c' or kind == 'r') and call('ZCARD', '@token:' .. name) - (gate[4] or gate[1]) or 0
if excess > 0 then
  local queues = passed_below(name, 128, excess)
  for queue, ids in pairs(queues) do back_to_wait(take_back(queue, ids, now)) end
end
return 1

-- Renew a worker's lease on all that it holds; who leads; release batches it does not know of.
-- Uses: base room jobs ready gating lanes exits
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock
--       2 worker: id, name, solo, expiry, half the lease that counts (both in microseconds), claims or false
--       3 what it says of itself
--       4 the claim numbers it holds
--       5 tallies: [queue, name, count as text] each
-- Returns  1 now  2 1 when it was given up; else 0 and
--          3 control  4 the leader's term when it leads, else empty  5 ids and entries of jobs to be cancelled  6 paused queues
local now = tonumber(ARGV[1]) or clock()
local id, name, solo, expiry, half, claims = unpack(unpacked(ARGV[2]))
local function known_as(other)
  local row = other and call('HGET', '@worker', other)
  return row and unpacked(row)
end
local known = known_as(id)
if known and known[6] ~= 0 then return {digits(now), 1} end
local cluster = call('HMGET', META, 'live', 'beat_at', 'term', 'leader')
local live, beat_at, term, leader = tonumber(cluster[1] or 0), tonumber(cluster[2] or 0), tonumber(cluster[3] or 0), cluster[4]
live = live + min(max(0, now - beat_at), half)
local leases, asked = call('HGETALL', '@lease:' .. id), call('HGETALL', '@cancelling')  -- first what not every user may
call('HSET', '@worker', id, pack({name, solo, known and known[3] or now, now, live + expiry, 0}))
call('HSET', '@info', id, ARGV[3])
if not solo and leader ~= id then
  local stands = known_as(leader)
  if not (stands and stands[6] == 0 and stands[5] > live) then
    leader, term = id, term + 1
    call('HSET', META, 'leader', leader, 'term', digits(term))
  end
end
call('HSET', META, 'live', digits(live), 'beat_at', digits(now))

local listed = {}
for _, no in ipairs(unpacked(ARGV[4])) do listed[digits(no)] = true end
local over = {}
for at = 1, #leases, 2 do
  local no, claimed_at = leases[at], tonumber(leases[at + 1])
  if not listed[no] and claimed_at < now - 10000000 and (not claims or tonumber(no) <= claims) then insert(over, no) end
end
local left, drained = gather('HMGET', '@left:' .. id, over), {}
for i, no in ipairs(over) do
  if left[i] then take_batch(id, name, no, 'released', 0, false, now) else insert(drained, no) end
end
many('HDEL', '@lease:' .. id, drained)
for _, tally in ipairs(unpacked(ARGV[5])) do add_tally(now, tally[1], tally[2], tally[3]) end

local cancelled = {}
for at = 1, #asked, 2 do
  local text = asked[at + 1] == id and call('HGET', RUN, asked[at])
  if text then
    insert(cancelled, asked[at])
    insert(cancelled, (running(text)))
  end
end
return {
  digits(now), 0, call('HGET', META, 'control') or '0', leader == id and digits(term) or '', cancelled,
  call('SMEMBERS', '@paused'),
}

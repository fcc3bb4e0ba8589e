-- Write the records of schedules over the versions expected, and store the jobs of those for which that succeeds.
-- Uses: base jobs ready gating lanes exits cancel limits
-- Calls: enqueue accept
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock
--       2 what channels begin with
--       3 how many ticks there are
--       4 shapes, as of `accept`
--       5 which shape each job has
--       6 "1": some have keys, lanes or gates
--       7... for each tick its key, the version expected, the value, how many jobs it makes; then the ids of all jobs, then for
--       each the client's part of it
-- Returns  for each tick 0 when the version was another, else what `accept` tells of its jobs
local now, count, which = digits(tonumber(ARGV[1]) or clock()), tonumber(ARGV[3]), unpacked(ARGV[5])
local first = 7 + 4 * count
local total = (#ARGV + 1 - first) / 2
local kept, chosen, ids, parts, at = {}, {}, {}, {}, 0
for i = 1, count do
  local key, expected, value, jobs = unpack(ARGV, 3 + 4 * i, 6 + 4 * i)
  jobs = tonumber(jobs)
  local old = call('HGET', '@record:schedule', key)
  local version = 0
  if old then
    local _, meta = unpack_one(old)
    version = meta[1]
  end
  if version > 0 and version == tonumber(expected) then
    kept[i] = {}
    call('HSET', '@record:schedule', key, pack({version + 1, 0}) .. value)
    for j = 1, jobs do
      insert(chosen, {i, j})
      insert(ids, ARGV[first + at + j - 1])
      insert(parts, ARGV[first + total + at + j - 1])
      which[#chosen] = which[at + j]
    end
  else
    kept[i] = 0
  end
  at = at + jobs
end
if #chosen == 0 then return kept end
for i = #which, #chosen + 1, -1 do which[i] = nil end
local arguments = {now, ARGV[2], '0', ARGV[4], pack(which)}
for _, id in ipairs(ids) do insert(arguments, id) end
for _, part in ipairs(parts) do insert(arguments, part) end
local told = ARGV[6] ~= '1' and enqueue(arguments) or accept(arguments)
for _, one in ipairs(told) do
  local list = type(one) == 'table'
  local tick, job = unpack(chosen[list and one[1] or one])
  if list then one[1] = job else one = job end
  insert(kept[tick], one)
end
return kept

-- Keep what a running job writes down.
-- Uses: base jobs exits
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock  2 worker  3 id  4 entry
--       5 progress, or empty  6 "1": a checkpoint is given  7 the checkpoint
--       8... log lines
-- Returns  1, or 0 when the lease is gone and nothing was written
local now = tonumber(ARGV[1]) or clock()
local id = ARGV[3]
local text, text_of = call('HGET', RUN, id), call('HGET', JOB, id)
if not text or not text_of then return 0 end
local entry, _, batch = running(text)
if entry ~= ARGV[4] or batch.worker ~= ARGV[2] then return 0 end
if ARGV[5] ~= '' or ARGV[6] == '1' then
  local old = call('HGET', DYN, id)
  local d = old and unpacked(old) or fresh(head(text_of))
  if ARGV[5] ~= '' then d[12] = ARGV[5] end
  if ARGV[6] == '1' then
    d[7] = true
    call('HSET', '@checkpoint', id, ARGV[7])
  end
  call('HSET', DYN, id, pack(d))
end
local size
for at = 8, #ARGV, 4000 do size = call('RPUSH', '@log:' .. id, unpack(ARGV, at, min(at + 3999, #ARGV))) end
if size and size > 1000 then
  call('LTRIM', '@log:' .. id, -1000, -1)
  add_tally(now, '', 'trimmed', size - 1000)
end
return 1

-- Read jobs by their ids, with all that was kept with them.
-- Uses: base jobs rows
--
-- KEYS  1 meta
-- ARGV  1 bytes after which it stops  2... ids
-- Returns  how many of the ids it came to, and of each that exists: its `rows`, attempts, log lines, checkpoint or nothing
local left, at, found = tonumber(ARGV[1]), 2, {}
while at <= #ARGV and left > 0 do
  local last = min(at + 19, #ARGV)
  for _, row in ipairs(rows({unpack(ARGV, at, last)})) do
    local tried, logs = call('LRANGE', '@try:' .. row[1], 0, -1), call('LRANGE', '@log:' .. row[1], 0, -1)
    local checkpoint = call('HGET', '@checkpoint', row[1])
    insert(found, {row, tried, logs, checkpoint})
    left = left - #row[2] - #row[5] - (checkpoint and #checkpoint or 0)
    for _, list in ipairs({tried, logs}) do
      for _, text in ipairs(list) do left = left - #text end
    end
  end
  at = last + 1
end
return {at - 2, found}

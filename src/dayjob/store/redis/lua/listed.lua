-- Whether what is stored is listed, as one moment shows it.
-- Uses: base
--
-- KEYS  1 meta
-- ARGV  none
-- Returns  how many jobs are stored, how many ids are listed, and how many places there are in the lists of those that wait,
--          run or have ended
local places = call('ZCARD', DUE)
for _, key in ipairs({RUN, END}) do places = places + call('HLEN', key) - call('HEXISTS', key, '') end
for _, kind in ipairs({'ready', 'suspect'}) do
  for _, queue in ipairs(call('ZRANGE', P .. kind, 0, -1)) do places = places + call('ZCARD', P .. kind .. ':' .. queue) end
end
for _, queue in ipairs(call('SMEMBERS', '@blocked')) do places = places + call('ZCARD', '@blocked:' .. queue) end
return {call('HLEN', JOB), call('ZCARD', IDS), places}

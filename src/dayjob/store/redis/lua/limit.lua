-- Set what holds for a whole queue.
-- Uses: base room jobs ready gating
-- Writes.
--
-- KEYS  1 meta
-- ARGV  1 the queue  2 "1": said in code, "2": at run time  3 LIMITS, or empty for none
-- Returns  1
local text = call('HGET', '@limits', ARGV[1])
local said = text and unpacked(text) or {false, false}
said[tonumber(ARGV[2])] = ARGV[3] ~= '' and unpacked(ARGV[3])
if said[1] or said[2] then
  call('HSET', '@limits', ARGV[1], pack(said))
  call('HSET', META, 'limited', 1)
else
  call('HDEL', '@limits', ARGV[1])
  if call('EXISTS', '@limits') == 0 then call('HDEL', META, 'limited') end
end
call('HINCRBY', META, 'control', 1)
local limits = said[2] or said[1]
if not limits or limits[6] ~= 'hold' then call('UNLINK', '@later:' .. ARGV[1]) end
if call('EXISTS', '@hold:' .. ARGV[1]) == 1 then call('SADD', '@freed', 'h' .. ARGV[1]) end
return 1

-- Breakers that are not closed, or have failures.
-- Uses: base
--
-- KEYS  1 meta
-- ARGV  1 now, or empty for the server's clock  2 how many at most
-- Returns  [key, state, since, until or 0, failures] each
local now, found = tonumber(ARGV[1]) or clock(), {}
local seen = {}
local function tell(key)
  if seen[key] or #found >= tonumber(ARGV[2]) then return end
  seen[key] = true
  local text = call('HGET', '@breaker', key)
  local state = text and unpacked(text) or {'closed', 0, 0}
  if state[1] == 'open' and state[3] > 0 and state[3] <= now then state = {'probing', state[3], 0} end
  local failures = call('ZRANGE', '@failures:' .. key, 0, -1, 'WITHSCORES')
  if state[1] == 'closed' and #failures > 0 then state[2] = tonumber(failures[2]) end
  if text or #failures > 0 then insert(found, pack({key, state[1], state[2], state[3], #failures / 2})) end
end
for _, key in ipairs(call('HKEYS', '@breaker')) do tell(key) end
for _, key in ipairs(call('ZRANGEBYSCORE', '@fails', '(' .. digits(now), '+inf')) do tell(key) end
return found

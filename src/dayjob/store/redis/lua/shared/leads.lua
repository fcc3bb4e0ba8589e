-- For the leader alone: ARGV[2] is its term, and a stale one changes nothing.
if call('HGET', META, 'term') ~= ARGV[2] or call('HEXISTS', META, 'leader') == 0 then return false end

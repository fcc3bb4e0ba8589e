-- Reading and counting jobs.

-- Add to the counter *name* of `depth`; one that comes to nothing goes.
local function depth(name, by)
  if by ~= 0 and call('HINCRBY', DEPTH, name, by) <= 0 then call('HDEL', DEPTH, name) end
end

local function head(record)
  local _, found = unpack_one(record)
  return found
end

-- Whether the job of this record may have GATING: its HEAD is no list of seven.
local function may_wait(record) return string.byte(record) ~= 151 end

-- What has become of a job of which nothing is kept: entry 0 means its place.
local function fresh(h) return {0, 0, 0, 0, 0, false, false, h[4], h[5], false, false, false} end

-- Whether anything is kept in `dyn`: beside the one field that is always there.
local function some_dyns() return call('HLEN', DYN) > call('HEXISTS', DYN, '') end

local function place_of(score) return score - floor(score / LEVEL) * LEVEL end

-- Numbers after the highest entry; the first of them.
local function entries(count) return call('HINCRBY', META, 'entry', count) - count + 1 end

local function add_tally(now, queue, name, value)
  local minute = digits(now - now % 60000000)
  call('ZADD', '@samples', minute, minute)
  call('HINCRBYFLOAT', '@sample:' .. minute, name .. '\0' .. queue, value)
end

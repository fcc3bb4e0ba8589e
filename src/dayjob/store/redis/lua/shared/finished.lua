-- Finished jobs: what is kept of them, and how they go.

-- COMMON and DYN or nil of a finished job.
local function ending(text)
  local at, common = unpack_one(text)
  local _, d = unpack_one(text, at)
  return common, d
end

-- Out of the lists of finished jobs; each of *jobs* is {id, queue, state}.
local function unlist(jobs)
  local ids, lists = {}, {}
  for i, job in ipairs(jobs) do
    ids[i] = job[1]
    local name = job[3] .. ':' .. job[2]
    lists[name] = lists[name] or {}
    insert(lists[name], job[1])
  end
  many('HDEL', END, ids)
  many('ZREM', KEEP, ids)
  for name, some in pairs(lists) do
    many('ZREM', '@end:' .. name, some)
    if call('EXISTS', '@end:' .. name) == 0 then call('SREM', '@ends', name) end
  end
  return ids
end

-- The finished among *ids* go for good; ids are remembered for an hour after the end, or when *always*. How many went.
local function forget_finished(ids, now, always)
  local records, ends = gather('HMGET', JOB, ids), gather('HMGET', END, ids)
  local jobs, untils, gone = {}, {}, {}
  for i, id in ipairs(ids) do
    if not ends[i] then
      insert(gone, id)  -- somebody has deleted it: it must not be found here for ever
    else
      local common = ending(ends[i])
      local queue = records[i] and head(records[i])[1] or ''
      insert(jobs, {id, queue, common[1]})
      if always or common[4] > now - HOUR then
        insert(untils, digits(now + HOUR))
        insert(untils, id)
      end
    end
  end
  many('ZREM', KEEP, gone)
  erase(unlist(jobs), untils)
  return #jobs
end

-- All that is kept of jobs, for people to read.

-- For each of *ids* that exists: id, record, DYN or "", `run` or "", `end` or "", state of a live job, score,
-- name of the worker that runs it, GATING or "".
local function rows(ids)
  local records, dyns = gather('HMGET', JOB, ids), gather('HMGET', DYN, ids)
  local runs, ends = gather('HMGET', RUN, ids), gather('HMGET', END, ids)
  local gatings = meta[2] and gather('HMGET', '@gating', ids) or {}
  local found, names = {}, {}
  for i, id in ipairs(ids) do
    local record = records[i]
    if record then
      local state, score, name = '', '', ''
      if runs[i] then
        state = 'running'
        local worker = string.match(runs[i], '^%d+ %-?%d+ %d+ %d+ ([^%z]*)%z')
        if not names[worker] then
          local row = call('HGET', '@worker', worker)
          names[worker] = row and unpacked(row)[1] or ''
        end
        name = names[worker]
      elseif not ends[i] then
        state, score = 'scheduled', call('ZSCORE', DUE, id)
        if not score then
          local suspect = dyns[i] and unpacked(dyns[i])[6]
          state, score = 'available', call('ZSCORE', P .. (suspect and 'suspect:' or 'ready:') .. head(record)[1], id)
          if not score and meta[2] then
            state, score = 'blocked', call('ZSCORE', '@blocked:' .. head(record)[1], id)
          end
          if not score then state = 'scheduled' end  -- in no list: see `standing`
        end
      end
      insert(found, {id, record, dyns[i] or '', runs[i] or '', ends[i] or '', state, score or '', name, gatings[i] or ''})
    end
  end
  return found
end

-- Of how many of *ids*, and their `rows`, until these have so many *bytes*: no other client waits long for it.
local function some_rows(ids, bytes)
  local found, at = {}, 0
  while at < #ids and bytes > 0 do
    local last = min(at + 20, #ids)
    for _, row in ipairs(rows({unpack(ids, at + 1, last)})) do
      insert(found, row)
      bytes = bytes - #row[2] - #row[5]
    end
    at = last
  end
  return at, found
end

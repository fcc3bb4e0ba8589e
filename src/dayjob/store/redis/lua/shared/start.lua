-- What a claim does about gates and limits.

-- Jobs of *queue* run from now: of each in *side* its id, its entry (`claims`), the score it had, and GATING or false where any
-- job has it (`known`). Rates count from here, and some keys are free.
local function started(queue, side, now)
  local ids, claims, known = side.ids, side.claims, side.known
  local limits = limits_of(queue)
  if limits and limits[4] then
    local stamps = {}
    for i, id in ipairs(ids) do
      insert(stamps, digits(now))
      insert(stamps, id .. '\0' .. claims[i])
    end
    many('ZADD', '@started:' .. queue, stamps)
    call('SADD', '@starts', queue)
  end
  if not GATED then return end
  local tokens, used = {}, {}
  forget_ready(queue, ids, side.scores, known)
  for gating, places in pairs(alike(known)) do
    if gating[1] and gating[1][3] == 'started' then
      for _, i in ipairs(places) do free_key(ids[i], gating[1]) end
    end
    for _, name in ipairs(names_of(gating)) do
      local kind, list = sub(name, 1, 1), tokens[name] or {}
      local size = #list
      tokens[name] = list
      for n = 1, kind == 'c' and 0 or #places do  -- whether those run, RUN says: nothing is written
        local id, score, member = ids[places[n]], '0', nil
        if kind == 'r' then
          score, member = digits(now), id .. '\0' .. claims[places[n]]
          under(used, name, id)
        elseif kind == 'o' then
          local place = call('ZSCORE', '@token:' .. name, id)
          score = place and digits(0 - math.abs(tonumber(place)))
        end
        if score then
          list[size + 1], list[size + 2] = score, member or id
          size = size + 2
        end
      end
    end
  end
  for name, members in pairs(tokens) do
    if used[name] then
      many('ZREM', '@token:' .. name, used[name])
      many('ZADD', '@token:' .. name, members)
      if call('EXISTS', '@wait:' .. name) == 1 then
        local gate = gate_of(name)
        open_at(name, gate[6] > now and gate[6] or ends_at(name, gate) or now)
      end
    else
      for at = 1, #members, 4000 do
        call('ZADD', '@token:' .. name, 'XX', unpack(members, at, min(at + 3999, #members)))
      end
    end
  end
end

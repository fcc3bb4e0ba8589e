-- The beginning of every script: names of keys, the clock, the schema, and calls with many values.
--
-- All keys begin with "{namespace}:", so that they share a slot of a Cluster. KEYS[1] is "{namespace}:meta" and stands for all
-- of them; in literals the beginning is written as an at sign, and put in before the script is loaded: to join strings
-- takes Lua a microsecond each. They are
--
--   meta            hash   schema, entry (the highest so far), control, live, beat_at, term, leader, gated (jobs have GATING), limited (queues have limits)
--   job             hash   id -> H .. S: what scripts read (HEAD below), then the client's part, which they never do
--   dyn             hash   id -> what has become of a live job (DYN below); absent: nothing yet
--   run             hash   id -> "entry score claim_no claimed_at worker NUL queue" while it runs
--   cancelling      hash   id -> worker, of running jobs that somebody wants cancelled
--   end             hash   id -> C .. DYN or nil .. E of a finished job: COMMON, what became of it, the client's part
--   ids             zset   every id, all with score 0: sorted as text
--   ready           zset   queues that have available jobs, each with the score of its first;
--   ready:<queue>   zset   those jobs, score by priority and place
--   suspect         zset   the same of suspects;               suspect:<queue>  zset
--   due             zset   scheduled jobs by their time;       expires  zset, waiting jobs that may expire
--   depth           hash   "s" .. queue -> scheduled jobs, "r" .. queue -> running ones
--   ends            set    "state:queue" of finished jobs;     end:<state>:<queue>  zset by when they finished; those
--                          that were moved to another store AWAY later, behind all others: no bound is for them
--   keep, gone      zset   finished jobs by when they go; ids that went, by when they may be forgotten
--   try:<id>, log:<id>     list;    checkpoint  hash by id
--   worker, info    hash   id -> WORKER below; id -> what the worker says of itself
--   lease:<worker>  hash   claim_no -> claimed_at
--   held:<worker>   hash   claim_no -> ids claimed;            left:<worker>  hash  claim_no -> how many still run
--   paused          set;   samples  zset of minutes;           sample:<minute>  hash  name NUL queue -> value
--   kinds           set;   record:<kind>  hash;                expiring  zset of kind NUL key
--   and, where jobs wait for more than their turn, those of `gating`
--
-- `dyn`, `run` and `end` have one field more, without a name: its value is so long that the server keeps them as tables from
-- the first job on. Short lists of short values it would search from end to end, 500 times for a batch of 500.
--
-- A score is place - priority * 2^45, exact in a double for priorities from -127 to 127. A place is an entry, and each claim that
-- goes back takes another, too: there are 2^45, which 60,000 a second use up in 18 years, and nothing looks after that.
-- HEAD: queue, priority, created_at, run_at, expires_at or 0, task, and false as a seventh where there is no GATING for certain: among
-- very many that have it, to look for what is not there takes the server longer than all else of a claim.
-- DYN: entry, attempt, crashes, round, parked, suspect, recorded, run_at, expires_at or 0, cancelling, reason, progress, and its
-- place in its strict lane, if it has stood there and was scheduled or edited since.
-- COMMON: state, reason, worker's name, now, keep_until or 0, attempts and crashes to add.
-- WORKER: name, solo, started_at, beat_at, expires, lost_at or 0 (below 0: given up, but has batches still).
--
-- A script that fails keeps what it has written, so scripts check first and write last. What may refuse them comes before a
-- script's first write: whether memory is full and whether this is a primary (the server asks itself), whether the slot is here
-- (below), and in `beat` and `turn` what a viewer may not. PUBLISH and PUBSUB may be refused later, and are asked by `pcall`.
-- Behind that there is only a user who lacks single commands, and somebody else's values under our keys.
local call, pack, unpacked, unpack_one = redis.call, cmsgpack.pack, cmsgpack.unpack, cmsgpack.unpack_one
local insert, concat, find, sub = table.insert, table.concat, string.find, string.sub
local floor, min, max = math.floor, math.min, math.max
local P = '@'
local META, JOB, DYN, RUN, END, IDS = '@meta', '@job', '@dyn', '@run', '@end', '@ids'
local DUE, EXPIRES, DEPTH, KEEP, GONE = '@due', '@expires', '@depth', '@keep', '@gone'
local NIL = '\192'
local LEVEL = 35184372088832
local HOUR = 3600000000
local AWAY = 4000000000000000

-- While a Cluster moves the slot, a key that is not there yet, or no more, fails whatever script asks for it. One that never is
-- there is asked for first, so that all scripts fail then before they have written anything.
call('EXISTS', '@ready-never')

local meta = call('HMGET', META, 'schema', 'gated', 'limited')
if meta[1] ~= '1' then return redis.error_reply('DAYJOB SCHEMA ' .. (meta[1] or '0')) end

-- *number* as digits: `..` keeps only 14 of them.
local function digits(number) return string.format('%.0f', number) end

local function clock()
  local time = call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- `verb key values...`, in pieces that `unpack` bears.
local function many(verb, key, values)
  for at = 1, #values, 4000 do call(verb, key, unpack(values, at, min(at + 3999, #values))) end
end

-- The replies to `verb key values...`, one per value.
local function gather(verb, key, values)
  if #values == 0 then return {} end
  if #values <= 4000 then return call(verb, key, unpack(values)) end
  local all = {}
  for at = 1, #values, 4000 do
    for _, value in ipairs(call(verb, key, unpack(values, at, min(at + 3999, #values)))) do insert(all, value) end
  end
  return all
end

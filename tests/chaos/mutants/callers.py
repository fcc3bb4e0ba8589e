"""Bugs in time, and in those who call the store: producers and workers."""

from __future__ import annotations

from tests.chaos.mutants.mutant import (
    COMBINER,
    DRAINED,
    EARLY,
    ENDS_ONCE,
    EXPLAINED,
    INVENTED,
    LEFT,
    LOST,
    LUA,
    OBEYED,
    POSTGRES_TURN,
    PROMPT,
    PUMP,
    SCHEMA,
    SQLITE,
    SQLITE_TURN,
    Mutant,
)
from tests.chaos.mutation import Change
from tests.chaos.storms import (
    CALM,
    LOSSY,
    PARTINGS,
    PATIENT,
    REGRET,
)

TIMES = (
    Mutant(
        name="delayed jobs are staged early",
        storm=CALM,
        promise="P6",
        breaks="what is due in two seconds is available now, when somebody looks",
        noticed=(EARLY,),
        sqlite=(
            Change(f"{SQLITE_TURN}.turn", "next_due <= now:", "next_due <= now + 2 * SECOND:"),
            Change(f"{SQLITE_TURN}.stage_batch", "count = int(", "now += 2 * SECOND\n        count = int("),
        ),
        postgres=(
            Change(SCHEMA, "run_at >= since AND run_at <= moment", "run_at >= since AND run_at <= moment + 2000000", 2),
        ),
        redis=(
            Change(f"{LUA}/shared/stage.lua", "'-inf', digits(now),", "'-inf', digits(now + 2000000),"),
            Change(f"{LUA}/turn.lua", "tonumber(due) <= now then", "tonumber(due) <= now + 2000000 then"),
        ),
    ),
    Mutant(
        name="a worker's clock decides",
        storm=CALM,
        promise="P6",
        breaks="what is due is decided by the wall clock of the worker that asks",
        noticed=(EARLY, DRAINED, LOST),
        sqlite=(
            Change(
                f"{SQLITE_TURN}.turn",
                "now = self.db.now() if now is None else now",
                'now = __import__("dayjob.clock").clock.wall()',
            ),
        ),
        postgres=(Change(f"{POSTGRES_TURN}.turn", "self.db.at(now)", '__import__("dayjob.clock").clock.wall()'),),
        redis=(
            Change(
                "dayjob.store.redis.turns:TurnPart.turn",
                "self.server.at(now)",
                '__import__("dayjob.clock").clock.wall()',
            ),
        ),
    ),
    Mutant(
        name="nobody is woken",
        storm=CALM,
        promise="P11",
        breaks="a job is stored, and whoever sleeps finds it when he looks around",
        noticed=(PROMPT,),
        sqlite=(Change(f"{COMBINER}._store", "for queue in awake(rows):", "for queue in ():"),),
    ),
)


PRODUCERS = (
    Mutant(
        name="a repeat is stored again",
        storm=LOSSY,
        promise="P9",
        breaks="an enqueue that is repeated stores its job a second time if the first has finished meanwhile",
        noticed=(ENDS_ONCE, INVENTED, EXPLAINED),
        sqlite=(
            Change(
                SQLITE,
                "    OR EXISTS (SELECT 1 FROM dayjob_history WHERE id = j.value) OR EXISTS (SELECT 1 FROM dayjob_gone WHERE id = j.value)\n",
                "",
            ),
        ),
        postgres=(Change(SCHEMA, "IF fresh AND repeat AND coalesce(", "IF fresh AND false AND coalesce("),),
        redis=(
            Change(
                f"{LUA}/enqueue.lua",
                "if known[i] or (gone and gone[i]) or seen[id] then",
                "if (known[i] and call('HEXISTS', END, id) == 0) or seen[id] then call('HDEL', END, id)",
            ),
        ),
    ),
    Mutant(
        name="a repeat has a new id",
        storm=LOSSY,
        promise="P9",
        breaks="a producer without an answer sends its job again, as another one",
        noticed=(INVENTED,),
        everywhere=(
            Change(
                f"{COMBINER}._back_off",
                "self._pending.appendleft(ticket)",
                'ticket.rows = [__import__("copy").copy(row) for row in ticket.rows]\n'
                "                for row in ticket.rows:\n"
                '                    row.id = __import__("uuid").UUID(row.id[:24] + row.id[:23:-1]).__str__()\n'
                "                self._pending.appendleft(ticket)",
            ),
        ),
    ),
    Mutant(
        name="enqueues are acknowledged unanswered",
        storm=LOSSY,
        promise="P1",
        breaks="a producer that the store does not answer is told that all is well",
        noticed=(LOST,),
        everywhere=(
            Change(
                f"{COMBINER}._flush",
                "self._back_off(tickets, error, final=waited and self._sink().exclusive)",
                "for ticket in tickets: ticket.succeed([INSERTED] * len(ticket.rows))",
            ),
        ),
    ),
)


WORKERS = (
    Mutant(
        name="a settlement without answer is dropped",
        storm=LOSSY,
        promise="P2",
        breaks="a worker whose settlements were not answered forgets them, and keeps their jobs",
        noticed=(LOST, DRAINED),
        everywhere=(
            Change(
                f"{PUMP}._exchange",
                "            raise  # else it is the store",
                "            self._pending = None\n            raise  # else it is the store",
            ),
        ),
    ),
    Mutant(
        name="a worker that is told to stop leaves its jobs",
        storm=PARTINGS,
        promise="P4",
        breaks="it ends at once and does not take its leave: others have to rescue what it held",
        noticed=(LEFT,),
        everywhere=(
            Change("dayjob.worker.winding:Winding.over", "not pump.claims.held_jobs()", "True"),
            Change("dayjob.worker.worker:Worker._leave", "self.store.leave(self._pump.worker)", "pass"),
        ),
    ),
    Mutant(
        name="a cancel is not passed on",
        storm=PATIENT,
        promise="P11",
        breaks="a job that runs is not told that somebody has cancelled it",
        noticed=(OBEYED,),
        everywhere=(Change(f"{PUMP}.heard", "for id, entry in beat.cancelled:", "for id, entry in ():"),),
    ),
    Mutant(
        name="a cancel does nothing",
        storm=REGRET,
        promise="P11",
        breaks="a job that waits is cancelled, says the store, and starts all the same",
        noticed=(OBEYED,),
        sqlite=(Change("dayjob.store.sqlite.jobs:JobsPart._cancel", "if waiting:", "if False:"),),
        postgres=(
            Change("dayjob.store.postgres.acts:ActsPart._cancel", "[one.id for one in live if not one.running]", "[]"),
        ),
        redis=(Change(f"{LUA}/act.lua", "if #waiting > 0 then cancel_waiting", "if false then cancel_waiting"),),
    ),
)

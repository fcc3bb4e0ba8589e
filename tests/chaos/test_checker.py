"""The checker, rule by rule: it is content with a clean run, and notices each thing that could be wrong with one."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from dayjob.clock import SECOND
from dayjob.states import Outcome, State
from tests.chaos.clean import DOOMED, KILLED, OTHER, SOLO, STEADY, TOLD, Run, attempt_row
from tests.chaos.evidence import NO_BEAT
from tests.chaos.ledger import Plan
from tests.chaos.rules.jobs import PLANNED
from tests.chaos.rules.leases import EXPLAINED, UNDISTURBED
from tests.chaos.rules.limits import RATED
from tests.chaos.rules.moments import RESCUED
from tests.chaos.spoilt_clocks import SPOILT as SPOILT_CLOCKS
from tests.chaos.spoilt_limits import SPOILT as SPOILT_LIMITS
from tests.chaos.spoilt_ticks import ALLOWED
from tests.chaos.spoilt_ticks import SPOILT as SPOILT_TICKS

CLEAN = Run()


@pytest.fixture
def run() -> Run:
    return copy.deepcopy(CLEAN)


def test_a_clean_run_breaks_no_rule_and_every_rule_had_something_to_look_at(run: Run) -> None:
    verdict = run.judged()

    assert verdict.violations == []
    assert [finding.rule for finding in verdict.findings if not finding.looked_at] == [
        "stale writes of workers are refused"
    ]
    assert verdict.findings[0].bound == pytest.approx(3 / 222)


Spoil = Callable[[Run], object]


def _lose(run: Run) -> object:
    return run.jobs.pop("calm-007")


def _leave_running(run: Run) -> object:
    run.jobs["calm-007"].state = State.RUNNING
    return None


def _leave_running_what_nobody_was_told_of(run: Run) -> object:
    run.facts = [fact for fact in run.facts if (fact["fact"], fact.get("id")) != ("enqueue.acknowledged", "calm-007")]
    return _leave_running(run)


def _invent(run: Run) -> None:
    run.keep("ghost", 1.0)


def _end_as_dead(run: Run) -> None:
    run.keep("calm-007", 1.0, attempt_row(1, Outcome.DEAD, 1.0), state=State.DEAD)


def _forget_an_attempt(run: Run) -> None:
    run.jobs["flaky"].attempt = 1


def _no_effect(run: Run) -> None:
    run.facts = [fact for fact in run.facts if (fact["fact"], fact.get("id")) != ("effect", "calm-007")]


def _accept_twice(run: Run) -> None:
    run.finish("calm-007", 3.0, 8)


def _accept_two_ends(run: Run) -> None:
    run.finish("calm-007", 3.0, 9999)


def _start_twice(run: Run) -> None:
    run.start("calm-007", 3.0, 9999)


def _start_when_another_had_claimed(run: Run) -> None:
    run.jobs["calm-150"].attempts.append(attempt_row(1, Outcome.LOST, 16.0, "other"))
    run.start("calm-150", 17.0, 9999)


def _start_twice_under_one_entry(run: Run) -> None:
    run.start("flaky", 15.9, 3000)


def _start_late_under_an_old_entry(run: Run) -> None:
    """Long after others have had the job."""
    run.fault("SIGSTOP", 18.0, 21.0, OTHER)
    run.start("flaky", 21.5, 2999, "other", OTHER)


def test_who_is_stopped_as_it_starts_notes_the_start_when_it_goes_on(run: Run) -> None:
    run.fault("SIGSTOP", 18.0, 21.0, OTHER)
    run.start("flaky", 21.01, 2999, "other", OTHER)

    assert EXPLAINED not in run.judged().broken_rules()


def test_and_holds_no_lease_then(run: Run) -> None:
    run.fault("SIGSTOP", 17.0, 18.03, OTHER)
    run.keep("limited-1", 18.08, attempt_row(1, Outcome.LOST, 17.9, "other"))
    run.start("limited-1", 18.04, 4999, "other", OTHER)

    assert not run.judged().violations


def _start_again_before_the_end_is_recorded(run: Run) -> None:
    (start,) = run.facts_of("start", id="taken", worker="solo")
    start["at"] = 7.0


def _lose_a_lease_in_calm(run: Run) -> None:
    run.keep("calm-190", 19.2, attempt_row(1, Outcome.LOST, 19.1))


def _lose_a_lease_while_another_suffers(run: Run) -> None:
    run.fault("SIGSTOP", 18.0, 19.0, OTHER)
    _lose_a_lease_in_calm(run)


def _give_up_all_after_an_outage(run: Run) -> None:
    for worker in ("steady", "other"):
        run.note("worker.gone", 11.5, STEADY, of=worker, jobs=0, death=None)


def _give_up_all_after_an_outage_when_many_have_left_before(run: Run) -> None:
    for number in range(10):
        run.note("worker.up", 0.0, 100 + number, worker=f"left-{number}", name="left", solo=False)
    _give_up_all_after_an_outage(run)


def _start_after_the_lease(run: Run) -> None:
    run.start("calm-199", 21.5, 1002, "killed", KILLED)


def _lead_twice(run: Run) -> None:
    run.note("term.granted", 9.3, 0, term=3, worker="solo")


def _keep_time_too_long(run: Run) -> None:
    run.note("upkeep.accepted", 9.6, 0, term=2, what="stage", sent=9.5)


def _work_on_when_cancelled(run: Run) -> None:
    run.note("effect", 25.0, STEADY, id="calm-195", entry=196, worker="steady")


def _work_on_when_cancelled_while_another_suffers(run: Run) -> None:
    run.fault("SIGSTOP", 24.0, 25.0, OTHER)
    _work_on_when_cancelled(run)


def _start_what_is_cancelled(run: Run) -> None:
    run.start("calm-195", 25.0, 9999)


def test_what_is_excused_is_not_counted_as_looked_at(run: Run) -> None:
    before = looked_at(run)
    _work_on_when_cancelled(run)
    run.fault("SIGSTOP", 24.0, 25.0, STEADY)
    run.jobs["taken"].attempts.append(attempt_row(1, Outcome.LOST, 7.3, "killed"))

    assert {rule: before[rule] - now for rule, now in looked_at(run).items() if now != before[rule]} == {
        "cancels are obeyed": 1
    }


def looked_at(run: Run) -> dict[str, int]:
    """How often each rule could have been broken."""
    return {finding.rule: finding.looked_at for finding in run.judged().findings}


def _number_attempts_wrongly(run: Run) -> None:
    run.jobs["flaky"].attempts = [attempt_row(2, Outcome.FAILED, 15.75)]


def _go_on_after_a_last_attempt(run: Run) -> None:
    run.jobs["flaky"].attempts.insert(0, attempt_row(1, Outcome.CANCELLED, 15.65))


def _count_a_neighbour(run: Run) -> None:
    run.jobs["taken"].attempts = [attempt_row(1, Outcome.CRASHED, 7.2), attempt_row(1, Outcome.CRASHED, 7.3)]
    run.jobs["taken"].crashes = 2


def _count_two_for_one_crash(run: Run) -> None:
    run.jobs["taken"].attempts.append(attempt_row(1, Outcome.CRASHED, 7.5, "solo"))
    run.jobs["taken"].crashes = 1


def _accept_a_stale_settlement(run: Run) -> None:
    lease = {"id": "taken", "entry": 1000, "worker": "killed", "outcome": "failed"}
    run.note("finish.sent", 8.0, KILLED, **lease)
    run.note("finish.accepted", 8.1, KILLED, **lease)


def _accept_a_repeated_settlement_of_what_was_taken_meanwhile(run: Run) -> None:
    lease = {"id": "taken", "entry": 1000, "worker": "killed", "outcome": "failed"}
    run.note("finish.sent", 7.0, KILLED, **lease)
    run.note("finish.sent", 7.25, KILLED, **lease)
    run.note("finish.accepted", 7.3, KILLED, **lease)


def _accept_a_stale_progress(run: Run) -> None:
    run.note("write.accepted", 8.0, KILLED, id="taken", entry=1000, worker="killed", sent=8.0)


def _accept_a_replay(run: Run) -> None:
    run.note("replay.accepted", 22.0, 0, id="calm-000", entry=1, worker="steady", outcome="dead")


def _replay_nothing(run: Run) -> None:
    run.facts = [fact for fact in run.facts if fact["fact"] != "replay.refused"]


def _start_early(run: Run) -> None:
    run.facts_of("start", id="flaky")[0]["at"] = 15.1


def _wake_nobody(run: Run) -> None:
    for fact in run.facts_of("start", worker="steady"):
        fact["at"] += 0.2


def _rescue_late(run: Run) -> None:
    run.facts_of("worker.gone")[0]["at"] = 9.9


def _rescue_late_from_a_lost_host(run: Run) -> None:
    run.facts_of("fault", name="SIGKILL")[0]["name"] = "host lost"
    _rescue_late(run)


def _rescue_late_while_another_suffers(run: Run) -> None:
    run.fault("SIGSTOP", 5.5, 9.8, OTHER)
    _rescue_late(run)


def test_while_nobody_leads_nobody_is_rescued(run: Run) -> None:
    for pid in (STEADY, OTHER, DOOMED, TOLD, SOLO):
        run.fault("SIGSTOP", 5.5, 7.5, pid)
    _rescue_late(run)

    assert RESCUED not in run.judged().broken_rules()


def test_a_job_may_begin_later_than_it_counts(run: Run) -> None:
    for number in range(4):
        run.facts_of("start", id=f"limited-{number}")[0]["at"] = 19.0 + number / 10

    assert RATED not in run.judged().broken_rules()


def test_a_process_may_have_the_number_of_one_that_was_killed(run: Run) -> None:
    run.note("worker.up", 20.0, KILLED, worker="later", name="later", solo=True)
    run.note("worker.gone", 21.0, STEADY, of="later", jobs=1, death="exit code 17")

    assert RESCUED not in run.judged().broken_rules()


def test_who_has_the_number_of_another_has_not_grown(run: Run) -> None:
    for number in range(100):
        later = number >= 50
        run.note("sample", number * 10.0, 0, target=OTHER, descriptors=20 + 10 * later, memory=(5 + 50 * later) << 20)
    run.note("exit", 495.0, 0, target=OTHER, code=-9)

    assert not run.judged().violations


def test_a_leader_that_is_struck_costs_a_lease_until_another_leads(run: Run) -> None:
    run.note("term.granted", 4.0, 0, term=0, worker="other")
    _rescue_late_while_another_suffers(run)

    assert RESCUED not in run.judged().broken_rules()


def _never_stop(run: Run) -> None:
    run.facts = [fact for fact in run.facts if fact["fact"] != "exit"]


def _stop_late(run: Run) -> None:
    run.facts_of("exit")[0]["at"] = 20.0


def _stop_late_when_the_harness_says_so(run: Run) -> None:
    _stop_late(run)
    run.fault("SIGTERM", 8.0, 20.0, TOLD)


def _stop_with_an_error(run: Run) -> None:
    run.facts_of("exit")[0]["code"] = 1


def test_a_process_that_its_job_killed_need_not_end_in_order(run: Run) -> None:
    _stop_with_an_error(run)
    run.enqueue("killer", 7.8, Plan(end="dead", attempts=0, crashes=3))
    run.start("killer", 8.5, 4000, "told", TOLD)

    assert not any("ended with" in line for line in run.judged().violations)


def test_who_is_dead_may_lose_his_lease_whenever_that_is_noticed(run: Run) -> None:
    run.keep("calm-190", 40.0, attempt_row(1, Outcome.LOST, 39.0, "killed"))

    assert UNDISTURBED not in run.judged().broken_rules()


def _count_a_crash(run: Run, at: float, reason: str) -> None:
    """Of a harmless job, in the process that runs suspects."""
    run.start("calm-190", at - 0.2, 6000, "solo", SOLO)
    run.keep("calm-190", 40.0, attempt_row(1, Outcome.CRASHED, at, "solo", reason), crashes=1)


def test_who_runs_alone_and_is_cut_off_may_have_lost_his_lease(run: Run) -> None:
    _count_a_crash(run, 11.5, NO_BEAT)

    assert PLANNED not in run.judged().broken_rules()


def _count_a_crash_though_nobody_was_cut_off(run: Run) -> None:
    _count_a_crash(run, 39.0, NO_BEAT)


def _count_a_crash_of_a_harmless_job(run: Run) -> None:
    _count_a_crash(run, 11.5, "killed by SIGSEGV")


def _leave_jobs_behind(run: Run) -> None:
    run.note("worker.gone", 9.5, STEADY, of="told", jobs=2, death=None)


def test_who_was_frozen_until_he_was_told_to_stop_may_have_lost_his_lease(run: Run) -> None:
    run.fault("SIGSTOP", 4.9, 7.9, TOLD)
    run.note("worker.gone", 8.1, STEADY, of="told", jobs=2, death=None)

    assert not run.judged().violations


def _leave_jobs_behind_when_the_harness_says_so(run: Run) -> None:
    _leave_jobs_behind(run)
    run.fault("SIGTERM", 8.0, 9.0, TOLD)


def _drain_late(run: Run) -> None:
    run.jobs["flaky"].finished_at = 99 * SECOND


def _never_flow_again(run: Run) -> None:
    run.facts = [fact for fact in run.facts if fact["fact"] != "effect" or not 10.5 < fact["at"] < 17.5]


def _beat_late(run: Run) -> None:
    for fact in run.facts_of("beat")[150:160]:
        fact["late"] = 0.6


def _leak_descriptors(run: Run) -> None:
    for number, fact in enumerate(run.facts_of("sample")):
        fact["descriptors"] += number


def _leak_memory(run: Run) -> None:
    for number, fact in enumerate(run.facts_of("sample")):
        fact["memory"] += number * 30_000


SPOILT: list[tuple[Spoil, str]] = [
    (_lose, "acknowledged jobs reach a terminal state"),
    (_leave_running, "acknowledged jobs reach a terminal state"),
    (_leave_running_what_nobody_was_told_of, "acknowledged jobs reach a terminal state"),
    (_invent, "jobs in the store were enqueued, each is there once"),
    (_end_as_dead, PLANNED),
    (_count_a_crash_though_nobody_was_cut_off, PLANNED),
    (_count_a_crash_of_a_harmless_job, PLANNED),
    (_forget_an_attempt, "attempts and crashes follow the table"),
    (_no_effect, "completed jobs did their work"),
    (_accept_twice, "one accepted terminal transition per job"),
    (_accept_two_ends, "one accepted terminal transition per job"),
    (_start_twice, EXPLAINED),
    (_start_when_another_had_claimed, EXPLAINED),
    (_start_twice_under_one_entry, EXPLAINED),
    (_start_late_under_an_old_entry, EXPLAINED),
    (_start_again_before_the_end_is_recorded, EXPLAINED),
    (_lose_a_lease_in_calm, UNDISTURBED),
    (_lose_a_lease_while_another_suffers, UNDISTURBED),
    (_give_up_all_after_an_outage, "an outage of the store costs no lease"),
    (_give_up_all_after_an_outage_when_many_have_left_before, "an outage of the store costs no lease"),
    (_start_after_the_lease, EXPLAINED),
    (_lead_twice, "only who leads keeps time"),
    (_keep_time_too_long, "only who leads keeps time"),
    (_work_on_when_cancelled, "cancels are obeyed"),
    (_work_on_when_cancelled_while_another_suffers, "cancels are obeyed"),
    (_start_what_is_cancelled, "cancels are obeyed"),
    (_number_attempts_wrongly, "attempts and crashes follow the table"),
    (_go_on_after_a_last_attempt, "attempts and crashes follow the table"),
    (_count_a_neighbour, "only crashes of those who run alone count"),
    (_count_two_for_one_crash, "a crash counts for one job at most"),
    (_accept_a_stale_settlement, "stale writes of workers are refused"),
    (_accept_a_repeated_settlement_of_what_was_taken_meanwhile, "stale writes of workers are refused"),
    (_accept_a_stale_progress, "stale writes of workers are refused"),
    (_accept_a_replay, "settlements under past leases are refused"),
    (_replay_nothing, "settlements under past leases are refused"),
    (_start_early, "delayed jobs do not start early"),
    (_wake_nobody, "who sleeps is woken by a job"),
    (_rescue_late, RESCUED),
    (_rescue_late_from_a_lost_host, RESCUED),
    (_rescue_late_while_another_suffers, RESCUED),
    (_never_stop, "a process that is told to stop ends in order"),
    (_stop_late, "a process that is told to stop ends in order"),
    (_stop_with_an_error, "a process that is told to stop ends in order"),
    (_leave_jobs_behind, "a process that is told to stop ends in order"),
    (_stop_late_when_the_harness_says_so, "a process that is told to stop ends in order"),
    (_leave_jobs_behind_when_the_harness_says_so, "a process that is told to stop ends in order"),
    (_drain_late, "all is done soon after the last fault"),
    (_never_flow_again, "the jobs flow again within 5 s"),
    (_beat_late, "beats are sent in time"),
    (_leak_descriptors, "processes do not grow"),
    (_leak_memory, "processes do not grow"),
    *SPOILT_LIMITS,
    *SPOILT_TICKS,
    *SPOILT_CLOCKS,
]


@pytest.mark.parametrize(("spoil", "rule"), SPOILT, ids=lambda each: getattr(each, "__name__", ""))
def test_it_notices(spoil: Spoil, rule: str, run: Run) -> None:
    spoil(run)

    assert rule in run.judged().broken_rules()


@pytest.mark.parametrize("happens", ALLOWED)
def test_what_a_schedule_may_leave_out_breaks_no_rule(happens: Spoil, run: Run) -> None:
    happens(run)

    assert not run.judged().violations


def test_who_died_or_left_before_it_is_no_victim_of_an_outage(run: Run) -> None:
    run.note("worker.gone", 48.0, STEADY, of="killed", jobs=0, death=None)
    run.note("worker.gone", 48.0, STEADY, of="told", jobs=0, death=None)
    for worker, pid in (("killed", KILLED), ("told", TOLD)):
        run.note("beat", 9.9, pid, worker=worker, late=0.0)
    run.fault("outage", 10.0, 47.0, None)

    assert "an outage of the store costs no lease" not in run.judged().broken_rules()


def test_every_rule_is_broken_by_some_spoilt_run() -> None:
    known = {finding.rule for finding in CLEAN.judged().findings} - {"the store's own data are sound"}

    assert known == {rule for _, rule in SPOILT}

"""The merge of lines at gates, against a greedy loop that looks at every job each time."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dayjob.store.admission import UNBOUNDED, Head, Merge, free_tokens, opens_at

GATES = "abc"


def head(number: int, priority: int = 0, gates: str = "a") -> Head[str]:
    return Head(-priority, number, number, priority, tuple(gates))


def admitted(merge: Merge[str, str]) -> list[int]:
    assert merge.run() is None
    return [job.place for job in merge.admitted]


def greedy(lines: dict[str, list[Head[str]]], free: dict[str, int], limit: int) -> list[int]:
    """Again and again the most urgent job that finds all its gates open; nobody passes one of its own line."""
    passed: list[int] = []
    left = {name: list(jobs) for name, jobs in lines.items()}
    while len(passed) < limit:
        heads = [(-jobs[0].priority, jobs[0].place, name) for name, jobs in left.items() if jobs]
        open_ones = [entry for entry in sorted(heads) if all(free[gate] > 0 for gate in left[entry[2]][0].gates)]
        if not open_ones:
            break
        job = left[open_ones[0][2]].pop(0)
        passed.append(job.place)
        for gate in job.gates:
            free[gate] -= 1
    return passed


@st.composite
def halls(draw: st.DrawFn) -> tuple[dict[str, list[Head[str]]], dict[str, int], int]:
    lines: dict[str, list[Head[str]]] = {}
    for number in range(draw(st.integers(1, 6))):
        gates = "".join(sorted(draw(st.sets(st.sampled_from(GATES), min_size=1))))
        jobs = [head(0, draw(st.integers(-1, 1)), gates) for _ in range(draw(st.integers(1, 5)))]
        jobs.sort()
        lines[f"line{number}"] = jobs
    everyone = draw(st.permutations([(name, n) for name, jobs in lines.items() for n in range(len(jobs))]))
    for place, (name, n) in enumerate(everyone, 1):
        lines[name][n].place = lines[name][n].entry = place
    lines = {name: sorted(jobs) for name, jobs in lines.items()}
    return lines, {gate: draw(st.integers(0, 4)) for gate in GATES}, draw(st.integers(1, 12))


@settings(max_examples=300, deadline=None)
@given(halls(), st.integers(1, 3))
def test_the_merge_admits_exactly_whom_the_greedy_loop_admits_in_its_order_however_little_it_is_shown(
    hall: tuple[dict[str, list[Head[str]]], dict[str, int], int], shown: int
) -> None:
    lines, free, limit = hall
    merge: Merge[str, str] = Merge(dict(free), limit)
    seen = dict.fromkeys(lines, 0)

    def show(name: str) -> None:
        start = seen[name]
        seen[name] = min(len(lines[name]), start + shown)
        assert merge.offer(name, lines[name][start : seen[name]], more=seen[name] < len(lines[name])) is None

    # Lines that wait at a gate are shown one by one, when the merge asks for them.
    waiting = {gate: [name for name, jobs in lines.items() if jobs[0].gates[0] == gate] for gate in GATES}
    for names in waiting.values():
        names.sort(key=lambda name: (-lines[name][0].priority, lines[name][0].place))

    def further(gate: str) -> None:
        if waiting[gate]:
            merge.wait(gate, lines[waiting[gate][0]][0].priority, lines[waiting[gate][0]][0].place)

    for gate in GATES:
        further(gate)
    while (need := merge.run()) is not None:
        if need.line is not None:
            show(need.line)
        elif need.gate is not None:
            show(waiting[need.gate].pop(0))
            further(need.gate)

    assert [job.place for job in merge.admitted] == greedy(lines, dict(free), limit)
    assert all(merge.free[gate] <= 0 for gate, _ in merge.stopped.values())


def test_a_line_stops_at_the_gate_that_is_closed_and_says_who_stands_first() -> None:
    merge: Merge[str, str] = Merge({"a": 1, "b": 5}, 10)
    merge.offer("x", [head(1, gates="ab"), head(2, gates="ab")], more=False)

    assert admitted(merge) == [1]
    assert merge.stopped == {"x": ("a", head(2, gates="ab"))}
    assert (merge.free, merge.ended, merge.left) == ({"a": 0, "b": 4}, [], {})


def test_a_job_that_was_taken_back_lets_those_behind_it_go_first() -> None:
    merge: Merge[str, str] = Merge({"a": 2}, 10, {1})
    merge.offer("x", [head(1), head(3)], more=False)
    merge.offer("y", [head(2)], more=False)

    assert admitted(merge) == [2, 3]
    assert merge.stopped == {"x": ("a", head(1))}


def test_nobody_passes_a_job_of_a_strict_line_that_was_taken_back() -> None:
    merge: Merge[str, str] = Merge({"a": 1}, 10, {1})
    merge.offer("x", [head(1), head(2)], more=False, strict=True)

    assert admitted(merge) == [1]


def test_the_limit_leaves_lines_and_gates_to_be_looked_at_again() -> None:
    merge: Merge[str, str] = Merge({"a": 9, "b": 9}, 1)
    merge.offer("x", [head(1), head(2)], more=False)
    merge.wait("b", 0, 3)

    assert admitted(merge) == [1]
    assert (merge.left, merge.unread) == ({"x": head(2)}, {"b"})


def test_enough_of_the_lines_that_count_is_enough() -> None:
    merge: Merge[str, str] = Merge({"a": 9}, 9, enough=2)
    merge.offer("others", [head(1), head(4), head(6)], more=False, counts=False)
    merge.offer("ours", [head(2), head(3), head(5)], more=False)

    assert admitted(merge) == [1, 2, 3]
    assert merge.left == {"others": head(4), "ours": head(5)}


def test_a_gate_lets_pass_what_its_kind_says() -> None:
    assert free_tokens("concurrency", 3, 1, False, "") == 2
    assert free_tokens("rate", 3, 5, False, "") == 0
    assert free_tokens("rate", 3, 0, True, "") == 0
    assert free_tokens("order", 7, 0, False, "") == 1
    assert [free_tokens("breaker", 1, 1, False, state) for state in ("closed", "open", "probing")] == [UNBOUNDED, 0, 0]


def test_time_opens_a_gate_when_enough_tokens_have_ended_by_themselves() -> None:
    assert opens_at([10, 20, 30], 3, 3) == 10
    assert opens_at([10, 20, 30], 4, 3) == 20  # one that has no end counts, too
    assert opens_at([10], 5, 3) is None
    assert opens_at([10], 2, 3) is None

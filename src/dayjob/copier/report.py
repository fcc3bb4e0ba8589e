"""What a copy says of itself: counts that add up, and what it writes down on the way."""

from __future__ import annotations

from msgspec import Struct, field

from dayjob.store.records import Whole

KIND = "copy"
"""The kind of the records, in the source, that say which jobs are on their way: one for each target, by its URL."""
HISTORY = "copied"
"""The kind of the records, in both, that say up to where the history was copied: in each one for the other, by its URL."""
MOST = 100
"""Problems that a report tells of, at most."""


class Count(Struct):
    """How the jobs of one state, or the pauses, or the records, came over. `found` is the sum of all others.

    Attributes:
        found: what the source had. copied: what the target took. there: what it had already.
        over: finished jobs whose time to be kept has passed. left: what a worker of the source took, or its owner changed,
            at this moment. refused: what the target cannot store, still in the source.
    """

    found: int = 0
    copied: int = 0
    there: int = 0
    over: int = 0
    left: int = 0
    refused: int = 0

    @property
    def even(self) -> bool:
        return self.found == self.copied + self.there + self.over + self.left + self.refused


class Problem(Struct, frozen=True):
    """Something that the target did not take, and why."""

    what: str
    why: str


class Report(Struct):
    """What a copy did, or in a dry run would do.

    Attributes:
        counts: by state, and for `pauses` and `records`. problems: what needs a person, the first hundred.
        waiting, running: jobs in the source when it ended. workers: of the source, alive then.
        on_way: jobs that were taken out of the source and have not arrived, when a copy was interrupted there.
    """

    source: str
    target: str
    dry_run: bool = False
    counts: dict[str, Count] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    waiting: int = 0
    running: int = 0
    workers: int = 0
    on_way: int = 0

    def count(self, name: str) -> Count:
        return self.counts.setdefault(name, Count())

    def problem(self, what: str, why: str) -> None:
        """Tell of *what*, once."""
        if len(self.problems) < MOST and all(one.what != what for one in self.problems):
            self.problems.append(Problem(what, why))

    @property
    def whole(self) -> bool:
        """Whether nothing is left behind, and the counts add up."""
        return not (self.waiting or self.running or self.on_way or self.problems) and all(
            one.even for one in self.counts.values()
        )


class Journal(Struct):
    """What the record in the source says.

    Attributes:
        run: who wrote it. ids: those on their way. jobs: the same, once they are taken out; without their logs.
        moved: how many went before, by state.
    """

    run: str
    ids: list[str] = field(default_factory=list)
    jobs: list[Whole] = field(default_factory=list)
    moved: dict[str, int] = field(default_factory=dict)

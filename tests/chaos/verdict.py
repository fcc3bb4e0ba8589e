"""What a rule finds, and what all of them say of a run together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from tests.chaos.ledger import Fact

SHOWN = 5

Broken = Iterator[str]
"""A line for each violation."""


class Finding(Struct, frozen=True):
    """What one rule found.

    Attributes:
        rule: in words. looked_at: observations. broken: each violation as a line.
        figures: what was measured on the way, for the report.
    """

    rule: str
    looked_at: int
    broken: tuple[str, ...]
    figures: str = ""

    @property
    def bound(self) -> float | None:
        """The rate of violations is below it with 95 % confidence; None: nothing can be said."""
        return None if self.broken or not self.looked_at else 3 / self.looked_at


class Verdict(Struct, frozen=True):
    """What the checker says of a run."""

    findings: tuple[Finding, ...]

    @property
    def violations(self) -> list[str]:
        """Every violation, with its rule."""
        return [f"{finding.rule}: {line}" for finding in self.findings for line in finding.broken]

    def broken_rules(self) -> set[str]:
        return {finding.rule for finding in self.findings if finding.broken}

    def text(self) -> str:
        """A line per rule, and the first violations below those that were broken."""
        lines = []
        for finding in self.findings:
            said = f"{len(finding.broken)} broken" if finding.broken else _bound(finding)
            lines.append(f"{finding.rule:<58} {finding.looked_at:>9,}  {said:<22} {finding.figures}".rstrip())
            lines += [f"    {line}" for line in finding.broken[:SHOWN]]
            if len(finding.broken) > SHOWN:
                lines.append(f"    … and {len(finding.broken) - SHOWN} more")
        return "\n".join(lines)


def _bound(finding: Finding) -> str:
    return "nothing to look at" if finding.bound is None else f"0 (≤ {finding.bound:.2g})"


def middle(facts: Sequence[Fact], what: str) -> float:
    """The median of a field."""
    return quantile([fact[what] for fact in facts], 0.5)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which lies that share of *values*; 0 when there are none."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0

"""The checker: reads ledger and store after a run, and says for each promise how often it was looked at and what broke it.

    ledger (what everybody says) ─┐
                                  ├─▶ Evidence ─▶ rules ─▶ Verdict: a line per rule, with the bound that it supports
    store (what is written)  ─────┘

It trusts nobody: what a worker says is held against what the store wrote, and the other way round. `mutants` seeds bugs into
dayjob and shows that each is noticed. A rule that had nothing to look at proves nothing, and says so.

Where n observations are clean, the true rate lies below 3/n with 95 % confidence (the rule of three: Hanley and
Lippman-Hand, JAMA 249, 1983).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dayjob.store.contract import Store
from tests.chaos.evidence import Conditions, Evidence, gather
from tests.chaos.ledger import Fact
from tests.chaos.rules import clocks, jobs, leases, limits, moments, remains, ticks
from tests.chaos.verdict import Finding, Verdict

RULES: tuple[Callable[[Evidence], Finding], ...] = (
    jobs.lost,
    jobs.invented,
    jobs.planned,
    jobs.worked,
    jobs.ends_once,
    leases.explained,
    leases.undisturbed,
    leases.spared,
    jobs.legal,
    leases.alone,
    leases.together,
    leases.stale,
    leases.replayed,
    leases.reigns,
    limits.unique,
    limits.told,
    limits.concurrent,
    limits.claimed,
    limits.started,
    clocks.ticked,
    ticks.once,
    ticks.in_time,
    ticks.beside,
    moments.early,
    jobs.obeyed,
    moments.prompt,
    moments.rescued,
    moments.left,
    moments.drained,
    moments.flowing,
    moments.beating,
    remains.sound,
    remains.steady,
)


def judge(facts: Sequence[Fact], store: Store, conditions: Conditions) -> Verdict:
    """Hold what a run left behind against what is promised."""
    evidence = gather(facts, store, conditions)
    return Verdict(tuple(rule(evidence) for rule in RULES))

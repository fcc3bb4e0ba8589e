"""The bare engines, by name. A new engine is one module that has a `Baseline`, and one line here."""

from __future__ import annotations

from importlib import import_module

from benchmarks.model import Baseline

_ENGINES = {
    "sqlite": "benchmarks.engines.sqlite:SQLite",
    "postgres": "benchmarks.engines.postgres:Postgres",
    "redis": "benchmarks.engines.redis:Redis",
}


def names() -> list[str]:
    """The engines that can be measured, the embedded one first."""
    return list(_ENGINES)


def engine(name: str) -> Baseline:
    """The engine called *name*; its driver is imported only now."""
    module, _, attribute = _ENGINES[name].partition(":")
    found: Baseline = getattr(import_module(module), attribute)()
    return found

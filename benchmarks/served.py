"""The application as a module of its own, where worker processes find it: `benchmarks.served:app`."""

from __future__ import annotations

from benchmarks.jobs import build

app = build().app

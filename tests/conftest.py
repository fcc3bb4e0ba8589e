"""What all tests share: how thoroughly Hypothesis looks, and nothing of the machine's own settings."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("dayjob", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("dayjob")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own DAYJOB_URL or DAYJOB_APP must not decide what a test talks to."""
    for name in [name for name in os.environ if name.startswith("DAYJOB_")]:
        monkeypatch.delenv(name)

"""What all tests share: how thoroughly Hypothesis looks, and nothing of the machine's own settings."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("dayjob", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("dayjob")

# A shell without job control starts what goes to the background deaf to both, and all that this starts would be so, too.
for _heard, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(_heard) == signal.SIG_IGN:
        signal.signal(_heard, _usual)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own DAYJOB_URL or DAYJOB_APP must not decide what a test talks to."""
    for name in [name for name in os.environ if name.startswith("DAYJOB_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def many_files() -> Iterator[None]:
    """A process that has more than a thousand files open, as a web server may: new descriptors are beyond `select`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4096, hard)), hard))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    yield
    for file in files:
        os.close(file)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

"""How a run of the command line ends, without a process of its own."""

from __future__ import annotations

import pytest

from dayjob.cli.group import run


@pytest.mark.parametrize("args", [[], ["jobs"], ["queues"]])
def test_without_a_command_the_help_is_shown_as_it_is_meant_to_be_read(
    args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run(args)
    shown = capsys.readouterr()
    lines = (shown.out + shown.err).splitlines()

    assert lines[0].startswith("Usage: dayjob")
    assert any(line.startswith("Commands:") for line in lines)
    assert not any(line.startswith("dayjob:") for line in lines)

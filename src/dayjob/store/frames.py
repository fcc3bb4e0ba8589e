"""What an error holds on to. Drivers' errors, caught in one of their functions and raised there again, hold themselves by its frame."""

from __future__ import annotations

from traceback import clear_frames


def let_go(error: BaseException | None) -> None:
    """Have the frames that *error* and its causes came through hold nothing more: no error, no connection with its buffers."""
    while error is not None:
        clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__

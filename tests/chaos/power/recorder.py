"""Runs the workload under strace, and reads from its log what was done to the disk, in the one true order.

strace stops a process before and after each call, and handles one stop at a time: so the end of a sync stands in the
log before whatever was done because of it, in any thread or process; the note in the ledger, say, that a job was
acknowledged. A call is two moments, its begin and its end; between them it may be under way.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from msgspec import Struct

from tests.chaos.ledger import Fact
from tests.servers.host import Missing

CALLS = (
    "openat open creat openat2 write writev pwrite64 pwritev pwritev2 ftruncate truncate fallocate fsync fdatasync "
    "sync_file_range msync unlink unlinkat rename renameat renameat2 link linkat sendfile copy_file_range splice mmap"
)
LONGEST = 60.0
LONGEST_WRITE = 1 << 24
FOLDER = 0
"""The number of the folder itself; files are numbered from 1 as they are created."""

_LINE = re.compile(r"(\d+)\s+(.*)", re.DOTALL)
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)", re.DOTALL)
_CALL = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+|0x[0-9a-f]+|\?)", re.DOTALL)
_HEX = r"((?:\\x[0-9a-f]{2})*)"
_DESCRIPTOR = re.compile(rf"\d+<{_HEX}>(?:\(deleted\))?")
_TEXT = re.compile(rf'"{_HEX}"')


class Op(Struct):
    """One thing that was done to the disk, or said in the ledger.

    Attributes:
        begun, ended: moments; ended is infinite for a call that never came back.
        kind: `write` (*data* at *offset*), `size` (the file is cut or grown to *offset*), `sync`, `create`, `remove`,
            `mark` (*fact*).
        file: its number; of the folder 0. name: of the file, in the folder.
    """

    begun: float
    ended: float
    kind: Literal["write", "size", "sync", "create", "remove", "mark"]
    file: int = FOLDER
    name: str = ""
    offset: int = 0
    data: bytes = b""
    fact: Fact = {}


class Recording(Struct):
    """What was done while a workload ran, in the order of its begin. *names*: of the files by number."""

    ops: list[Op]
    seed: int
    synchronous: str

    def of_kind(self, kind: str) -> list[Op]:
        return [op for op in self.ops if op.kind == kind]


def record(folder: Path, seed: int, synchronous: str = "FULL") -> Recording:
    """Run the workload of *seed* in *folder*, and return what it did.

    Raises:
        Missing: this machine has no strace, or does not let it trace.
    """
    require_strace()
    for name in ("disk", "ledger"):
        (folder / name).mkdir(parents=True)
    log = folder / "strace.log"
    workload = [sys.executable, "-m", "tests.chaos.power.workload", str(folder), str(seed), synchronous]
    # A session of its own: strace that is killed lets go of what it traces, and does not end it.
    traced = subprocess.Popen([*_strace(log), *workload], start_new_session=True)
    try:
        if traced.wait(LONGEST):
            raise RuntimeError(f"the workload of seed {seed} ended with {traced.returncode}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(traced.pid, signal.SIGKILL)
        traced.wait()
    recording = Recording(read(log, folder), seed, synchronous)
    log.unlink()  # tens of megabytes
    return recording


def read(log: Path, folder: Path) -> list[Op]:
    """What a log of strace says of *folder*/disk and *folder*/ledger, in the order of its begin."""
    return list(_Reader(folder).ops(log))


def _strace(log: Path) -> list[str]:
    # Only the calls that are traced stop the process: without seccomp-bpf every one does, ten times as slow.
    options = ["-f", "--seccomp-bpf", "-y", "-xx", "-s", str(LONGEST_WRITE), "-e", "signal=none"]
    return ["strace", *options, "-e", f"trace={CALLS.replace(' ', ',')}", "-o", str(log)]


def require_strace() -> None:
    """Raises `Missing` where nothing can be recorded."""
    if sys.platform != "linux" or not shutil.which("strace"):
        raise Missing("power cuts are recorded by strace: apt-get install strace (Linux)")
    tried = subprocess.run([*_strace(Path(os.devnull)), "true"], capture_output=True, text=True)
    if tried.returncode:
        raise Missing(f"strace may not trace here (ptrace): {tried.stderr.strip()}")


class _Reader:
    """Reads a log of strace about *folder*."""

    def __init__(self, folder: Path) -> None:
        self._disk, self._ledger = str(folder.resolve() / "disk"), str(folder.resolve() / "ledger")
        self._files: dict[str, int] = {}
        self._count = 0

    def ops(self, log: Path) -> Iterator[Op]:
        calls = sorted(_calls(log), key=lambda call: call[0])
        for begun, ended, name, arguments, result in calls:
            if result >= 0:
                yield from self._understood(Op(begun, ended, "write"), name, arguments, result)

    def _understood(self, op: Op, call: str, arguments: str, result: int) -> Iterator[Op]:
        """*op* with what *call* did, if that concerns the disk or the ledger."""
        descriptor = _DESCRIPTOR.match(arguments)
        texts = [_bytes(text) for text in _TEXT.findall(arguments)]
        if call in ("openat", "unlink", "unlinkat"):
            path = os.fsdecode(texts[0])
        elif descriptor is not None and "(deleted)" not in descriptor.group():
            path = os.fsdecode(_bytes(descriptor.group(1)))
        else:
            path = os.fsdecode(_bytes("".join(re.findall(_HEX, arguments))))
        if path.startswith(self._ledger) and call == "write":
            op.kind, op.fact = "mark", json.loads(texts[0])
            yield op
        elif path == self._disk and call in ("fsync", "fdatasync"):
            op.kind = "sync"
            yield op
        elif self._disk in path and path != self._disk and not _volatile(path):
            yield from self._done(op, call, path, arguments, texts, result)

    def _done(self, op: Op, call: str, path: str, arguments: str, texts: list[bytes], result: int) -> Iterator[Op]:
        op.name = path.removeprefix(self._disk + "/")
        if call == "openat":
            if "O_CREAT" not in arguments or path in self._files:
                return
            self._count += 1
            self._files[path] = self._count
            op.kind = "create"
        elif call == "pwrite64":
            op.offset, op.data = int(arguments.rpartition(", ")[2]), texts[-1][:result]
        elif call == "ftruncate":
            op.kind, op.offset = "size", int(arguments.rpartition(", ")[2])
        elif call in ("fsync", "fdatasync"):
            op.kind = "sync"
        elif call == "unlink":
            op.kind, op.file = "remove", self._files.pop(path)
            yield op
            return
        else:
            raise AssertionError(f"the recorder does not know what this does to the disk: {call}({arguments[:300]})")
        op.file = self._files[path]
        yield op


def _volatile(path: str) -> bool:
    """The shared memory is made anew after a boot, and the folder of wake-up sockets holds no data."""
    return path.endswith("-shm") or path.partition("-wake")[1] != ""


def _calls(log: Path) -> Iterator[tuple[float, float, str, str, int]]:
    """(begun, ended, name, arguments, result) of each call; one that never came back may have done all that it was to do."""
    under_way: dict[str, tuple[float, str]] = {}
    with log.open() as lines:
        for number, line in enumerate(lines):
            pid, text = _LINE.fullmatch(line.rstrip("\n")).groups()  # type: ignore[union-attr]
            resumed = _RESUMED.fullmatch(text)
            begun = 2.0 * number
            if text.endswith("<unfinished ...>"):
                under_way[pid] = begun, text.removesuffix("<unfinished ...>").rstrip()
                continue
            if resumed is not None:
                begun, entry = under_way.pop(pid)
                text = entry + resumed.group(1)
            call = _CALL.match(text)
            if call is not None:
                name, arguments, result = call.groups()
                if result == "?":
                    yield begun, math.inf, name, arguments, LONGEST_WRITE
                else:
                    yield begun, 2.0 * number + 1, name, arguments, int(result, 0)
    for begun, text in under_way.values():
        name, _, arguments = text.partition("(")
        yield begun, math.inf, name, arguments, LONGEST_WRITE


def _bytes(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))

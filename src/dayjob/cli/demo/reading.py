"""The work of the demo, in plain functions: the jobs and the single-process comparison call the same code."""

from __future__ import annotations

import codecs
import hashlib
import io
import os
import stat
import tokenize
from pathlib import Path

from msgspec import Struct

LARGEST = 256 * 1024 * 1024
"""Files are read whole; a larger one is not worth a demo's memory."""
LAST_LINE = "the end"
"""How the file that grows during the demo ends."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Reading(Struct, frozen=True):
    """What one file holds."""

    sha256: str
    size: int
    lines: int
    words: int
    encoding: str


class Binary(Exception):
    """The file is no text: trying again will not change that."""


def measure(path: str) -> Reading:
    """Read the file at *path*: its SHA-256, its lines and words, its encoding.

    Raises:
        Binary: it holds bytes that no text has.
        OSError: it cannot be read (now).
    """
    file = Path(path)
    if not stat.S_ISREG(file.stat().st_mode):  # a link to a pipe would block us for ever
        raise OSError(f"not a regular file: {path}")
    with file.open("rb") as opened:
        data = opened.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise Binary(f"larger than {LARGEST:,} bytes")
    encoding = detect(data, python=path.endswith((".py", ".pyi")))
    text = data.decode(encoding, errors="strict")
    return Reading(hashlib.sha256(data).hexdigest(), len(data), len(text.splitlines()), len(text.split()), encoding)


def detect(data: bytes, *, python: bool = False) -> str:
    """The encoding of *data*: by its mark, by a declaration in Python source, else by what decodes without an error.

    Raises:
        Binary: a NUL byte without a mark that would explain it, or bytes that fit nothing.
    """
    for mark, name in _MARKS:
        if data.startswith(mark):
            return _decodable(data, name)
    if (at := data.find(b"\0")) >= 0:
        raise Binary(f"a NUL byte at offset {at:,}")
    if data.isascii():
        return "ascii"
    if python:
        try:
            declared, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        except SyntaxError:
            declared = "utf-8"
        if declared != "utf-8":
            return _decodable(data, declared)
    for name in ("utf-8", "cp1252"):
        try:
            data.decode(name)
        except UnicodeDecodeError:
            continue
        return name
    return "latin-1"


def _decodable(data: bytes, name: str) -> str:
    try:
        data.decode(name)
    except (UnicodeDecodeError, LookupError) as error:
        raise Binary(f"marked as {name}, but: {error}") from None
    return name


def standard_library() -> Path:
    """Where this Python keeps its standard library."""
    return Path(os.__file__).parent


def files_below(top: Path) -> list[str]:
    """Every file below *top*, sorted; links to directories are not followed.

    In the standard library the caches of compiled code (which Python rewrites while we look) and installed packages are
    left out. Sockets, pipes and devices are no files.
    """
    skipped = {"__pycache__", "site-packages", "dist-packages"} if top == standard_library() else set()
    found = []
    for folder, names, files in os.walk(top):
        names[:] = sorted(name for name in names if name not in skipped)
        for path in (Path(folder, name) for name in files):
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
                found.append(str(path))
    return sorted(found)

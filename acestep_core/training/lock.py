"""One process for each run folder. The system itself lets go of a lock when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

NAME = "lock"
FAR = 2**30
"""Windows locks bytes, and what is locked cannot be read; this one lies behind all text."""
TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


class RunInUse(ValueError):
    """Another process trains in the folder."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within the block no other process, and no other thread, trains in ``folder``, which is made where it is missing.

    What an ended process left behind is taken over. On file systems that know no locks there is none.

    Raises:
        RunInUse: somebody else trains there; it says who.
        OSError: the folder cannot be written.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    file = open(path, "a+b", buffering=0)
    try:
        if not _take(file):
            raise RunInUse(
                f"{folder.name} is being trained already{_owner(path)}. Wait until that is done or stop it, or give "
                "this run another name."
            )
        file.truncate(0)
        file.write(json.dumps({"process": os.getpid(), "machine": socket.gethostname(), "since": _now()}).encode())
        try:
            yield
        finally:
            file.truncate(0)
    finally:
        file.close()
        if made and [other.name for other in folder.iterdir()] == [NAME]:
            with contextlib.suppress(OSError):
                path.unlink()
                folder.rmdir()


def require_free(folder: Path) -> None:
    """Raise RunInUse where somebody trains in ``folder`` at this moment; nothing is made."""
    if (folder / NAME).is_file():
        with locked(folder):
            pass


def _take(file: BinaryIO) -> bool:
    """Lock an open file; false where somebody holds it."""
    try:
        _lock(file.fileno())
    except OSError as error:
        return error.errno not in TAKEN
    return True


try:
    import fcntl
except ImportError:
    import msvcrt

    def _lock(handle: int) -> None:
        os.lseek(handle, FAR, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)

else:

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _owner(path: Path) -> str:
    """Who holds the lock, where it can be read."""
    try:
        values = json.loads(path.read_bytes())
        return f" (process {values['process']} on {values['machine']}, since {values['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M")
